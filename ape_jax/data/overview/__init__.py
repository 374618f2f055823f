"""What a pairs source holds: figures that people look at before they train."""
