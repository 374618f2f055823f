"""Adapters that PEFT saved: which tensors they change, and their merge."""
