"""What is published with an export: the model card, and the upload to the hub."""
