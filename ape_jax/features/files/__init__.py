"""The files of a cache: shards of rows, what is on record of them, and what was verified."""
