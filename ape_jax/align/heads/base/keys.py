"""Config keys that several heads share, each with its default, check and words."""

from ape_jax.config.fields import choice, integer, number

DEPTH = integer(4, 1, 64).explained("Layers of the head.")
WIDTH = integer(0, 0, 2**16).explained("Width of hidden layers; 0 is the input's.")
EXPANSION = integer(0, 0, 64).explained(
    "Width of hidden layers as a multiple of the input's; 0 is the head's own."
)
ACTIVATION = choice("gelu", "gelu_new", "quick_gelu", "relu", "silu", "tanh").explained(
    "Activation between the layers."
)
DROPOUT = number(0.0, 0.0, 0.99).explained("Rate of dropout in the head.")
