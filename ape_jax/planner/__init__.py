"""What a configuration costs on a machine that is not here: compiled for it, and measured off."""
