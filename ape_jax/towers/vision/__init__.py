"""Image towers, one family a file, and their preparation of images."""
