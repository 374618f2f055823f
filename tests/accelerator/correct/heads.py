"""Every head of captions: packed captions give what padded ones give, and the same gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from tests.accelerator.correct import apart
from tests.accelerator.figures import Figures
from tests.accelerator.settings import Settings
from tests.align import packed_heads

# Of the largest value. Both forms make the same products of the same tokens and sum them in another
# order; on a processor they are within 5e-6 of each other in float32 (tests/align/test_packing.py).
# Here a mean is over as many as 60 tokens and a gradient over thousands of them.
FLOAT32 = 2e-5
# The inputs of every product are rounded to 8 bits: where sums that differ by 1e-6 round to another
# number, an input is off by 2^-8, and a gradient by a few of them.
BFLOAT16 = 2e-2


def run(settings: Settings, figures: Figures) -> None:
    """Prints how far packed captions are from padded ones."""
    rng = np.random.default_rng(0)
    width = settings.pick(256, 16)
    captions, longest = settings.pick(512, 16), settings.pick(60, 9)
    lengths = rng.integers(1, longest, captions).tolist()
    packed, padded = packed_heads.both_forms(lengths, groups=2, width=width)
    for dtype, bound in ((jnp.float32, FLOAT32), (jnp.bfloat16, BFLOAT16)):
        made = packed_heads.heads_on(width, settings.pick(128, 8), settings.pick(512, 16), dtype)
        for name, head in made.items():
            if settings.small and dtype == jnp.bfloat16 and name not in ("mlp", "transformer"):
                continue
            text = packed_heads.padded_input(padded)
            params = jax.jit(head.init)(jax.random.key(0), text)
            program = jax.jit(packed_heads.gradient(head))
            slope, z = program(params, packed_heads.heads.TextInput(packed=packed))
            by_padded, want = program(params, text)
            off = apart(z, want)
            title = f"{name}, {jnp.dtype(dtype).name}"
            figures.checked(title, off, bound=bound, unit="of the largest")
            off = _gradients_apart(slope, by_padded)
            figures.checked(f"{title}, gradient", off, bound=bound, unit="of the largest")


def _gradients_apart(ours: object, theirs: object) -> float:
    """By the largest of a leaf, or a thousandth of that of all.

    A key's bias has no gradient but for rounding, so a leaf is not measured by itself alone.
    """
    leaves = [np.asarray(x) for x in jax.tree.leaves(theirs)]
    least = 1e-3 * max((np.abs(x).max() for x in leaves), default=0)
    found = 0.0
    for a, b in zip(jax.tree.leaves(ours), leaves, strict=True):
        off = np.abs(np.asarray(a) - b).max() / max(np.abs(b).max(), least, 1e-30)
        found = float(np.maximum(found, off))
    return found
