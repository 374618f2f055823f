"""Icons and their names as image-text pairs."""
