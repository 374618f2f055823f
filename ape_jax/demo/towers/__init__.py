"""Real towers out of packages."""
