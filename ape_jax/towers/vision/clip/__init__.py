"""Vision transformers that were trained beside a text tower, a family a file."""
