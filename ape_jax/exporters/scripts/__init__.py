"""Scripts that run in processes of their own and import nothing of this package."""
