"""Formats of pairs files, one a file."""
