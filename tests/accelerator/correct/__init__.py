"""What must be right on an accelerator."""
