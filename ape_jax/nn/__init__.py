"""Layers and the arithmetic under them: stacked blocks, products that accumulate in f32, int8."""

import importlib.metadata

try:
    importlib.metadata.distribution("mkl")
except importlib.metadata.PackageNotFoundError:
    pass
else:
    from ape_jax.nn import mkl  # noqa: F401  (a plug-in: importing it registers its products)
