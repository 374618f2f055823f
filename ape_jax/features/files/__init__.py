"""The files of a cache: shards of rows, and what is on record of them."""
