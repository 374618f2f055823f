"""Config keys that several heads share, each with its default, check and words."""

from ape_jax.config.fields import choice, integer, number

DEPTH = integer(4, 1, 64)
WIDTH = integer(0, 0, 2**16)  # 0: the input's.
EXPANSION = integer(0, 0, 64)  # 0: the head's own.
ACTIVATION = choice("gelu", "gelu_new", "quick_gelu", "relu", "silu", "tanh")
DROPOUT = number(0.0, 0.0, 0.99)
