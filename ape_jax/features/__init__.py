"""Encode once: the outputs of frozen towers, held in memory for training and evaluation."""
