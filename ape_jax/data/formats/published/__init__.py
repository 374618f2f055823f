"""Captions and labels in the layouts that public data sets are published in."""
