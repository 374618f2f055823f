"""Studies: methods compared over seeds and sizes."""
