"""A work directory: whose it is, its config and summary, and what they say of its pairs."""
