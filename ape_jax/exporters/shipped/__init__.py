"""Code that an export brings with it; it imports nothing of this package."""
