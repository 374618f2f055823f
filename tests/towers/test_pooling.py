"""Poolings without parameters, against sentence-transformers' own module."""

import itertools

import numpy as np
import pytest

from ape_jax.config import poolings
from ape_jax.towers import pooling

torch = pytest.importorskip("torch")
THEIRS = {"mean_sqrt_len": "mean_sqrt_len_tokens", "last": "lasttoken"}


@pytest.fixture(scope="module")
def padded():
    """Tokens of four texts of 1 to 6 tokens, and masks that pad right, left and not at all."""
    tokens = np.random.default_rng(0).normal(size=(4, 6, 5)).astype(np.float32)
    place = np.arange(6)[None]
    lengths = np.array([1, 6, 3, 4])[:, None]
    return tokens, {
        "right": place < lengths,
        "left": place >= 6 - lengths,
        "none": np.ones((4, 6), bool),
    }


@pytest.mark.parametrize("side", ["right", "left", "none"])
def test_every_mode_and_every_pair_equals_sentence_transformers(padded, side):
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules.pooling")
    tokens, mask = padded[0], padded[1][side]
    given = {
        "token_embeddings": torch.tensor(tokens),
        "attention_mask": torch.tensor(mask).long(),
    }
    pairs = itertools.combinations(poolings.MODES, 2)
    for names in [*((mode,) for mode in poolings.MODES), *pairs, poolings.MODES]:
        module = modules.Pooling(5, tuple(THEIRS.get(name, name) for name in names))
        want = module(dict(given))["sentence_embedding"].numpy()
        got = pooling.joined(tokens, mask, "+".join(names))
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_what_the_mask_leaves_out_is_not_read(padded):
    tokens, mask = padded[0], padded[1]["right"]
    noisy = np.where(mask[..., None], tokens, 1e30).astype(np.float32)
    for mode in ("cls", "max", "last"):
        np.testing.assert_array_equal(
            pooling.joined(noisy, mask, mode), pooling.joined(tokens, mask, mode)
        )


@pytest.mark.parametrize("name", ["map", "head", "none", "mean+mean", "mean+", ""])
def test_what_needs_a_part_of_the_tower_is_no_joined_pooling(padded, name):
    assert not poolings.is_pooling(name)
    with pytest.raises(ValueError, match="by the module itself"):
        pooling.joined(padded[0], padded[1]["none"], name)
