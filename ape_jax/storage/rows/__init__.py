"""Arrays whose rows are read from files where they are asked for."""
