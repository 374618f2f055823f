"""Training of towers: tuning modes, adapters, the trainable part."""
