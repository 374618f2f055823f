"""Encoders of models that have a decoder, too, a family a file."""
