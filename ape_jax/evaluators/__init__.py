"""Evaluators: one task a file, from finished embeddings to plain dictionaries of floats.

They are numpy alone, so that a training loop, a command and a notebook report the same figures for
the same embeddings. `tasks` runs them on a data set and whatever encodes it.
"""

from __future__ import annotations
