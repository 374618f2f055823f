"""Files that a run leaves beside its summary."""
