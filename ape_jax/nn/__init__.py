"""Layers and the arithmetic under them: stacked blocks, products that accumulate in f32, int8."""
