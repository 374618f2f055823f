"""BERT and its kin, a family a file."""
