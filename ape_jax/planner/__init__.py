"""Cost of a configuration on other hardware: compiled for it, and read off the program."""
