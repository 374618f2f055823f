"""Convolutional networks as towers, a family a file."""
