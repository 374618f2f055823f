"""Files that are written once: the cache folder, sealed JSON, build-once directories."""
