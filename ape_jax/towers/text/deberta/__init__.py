"""DeBERTa: an attention of its own, and the family that has it."""
