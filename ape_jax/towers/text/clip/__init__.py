"""Text towers that were trained beside an image tower, a family a file."""
