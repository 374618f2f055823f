"""Files and images at urls, kept in the cache folder."""
