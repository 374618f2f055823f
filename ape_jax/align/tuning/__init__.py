"""What is trained of a tower: tuning modes, adapters, the trainable part."""
