"""Captions of a run as single vectors, and the means of their languages."""
