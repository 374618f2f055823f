"""Emoji and their names as image-text pairs."""
