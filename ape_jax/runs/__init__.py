"""A run as it is kept and used: its work directory, checkpoints, and the aligned model."""
