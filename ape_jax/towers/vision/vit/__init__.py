"""Vision transformers that were trained alone, a family a file."""
