"""Formats of pairs: one file and one line in `registry` each."""
