"""Curation: few, carefully chosen pairs out of a large pool."""
