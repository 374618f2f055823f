"""Text towers, one family a file, and their tokenizers."""
