"""BERTs whose queries and keys are turned by their positions, a family a file."""
