"""How fast an accelerator runs what is ours, beside torch and its own rates."""
