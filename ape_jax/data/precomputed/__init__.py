"""Own features: arrays of vectors in the files that people have, read by rows and not loaded."""
