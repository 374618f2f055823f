"""Files out of packages: PyPI and npm archives, pinned and hash-checked."""
