"""Checkpoints of a run: their folders, trees of arrays, sealed records and hashes."""
