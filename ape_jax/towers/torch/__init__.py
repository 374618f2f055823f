"""Frozen towers that transformers, timm or sentence-transformers run in torch."""
