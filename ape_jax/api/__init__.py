"""The Python face: `ape_jax.fit`, `ape_jax.load` and what they return, an `Aligner`."""
