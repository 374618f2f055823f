"""Files that hold towers: their formats, and their names for tensors."""
