"""Evaluators: one task a file, numpy only, no encoder and no device in sight.

They take finished embeddings and give plain dictionaries of floats, so that a training loop, a
command and a notebook all report the same figures for the same embeddings.
"""

from __future__ import annotations
