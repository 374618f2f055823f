"""Rotary positions on a grid, patch by patch and pair by pair."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.nn.attention import Rotation, rotate
from ape_jax.nn.axial import Axial, square

GRID, WIDTH = (3, 2), 8
CONFIG = {
    "model_type": "dinov3_vit",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "patch_size": 4,
    "num_register_tokens": 2,
}


def centered(row, column):
    """Centres of patches from -1 to 1, in turns."""
    return [2 * math.pi * ((2 * i + 1) / n - 1) for i, n in zip((row, column), GRID)]


CASES = {
    "DINOv3": (Axial(theta=100.0, centered=True), centered),
    "counted": (Axial(theta=1e4), lambda row, column: [row, column]),
    "EVA-02": (
        Axial(theta=1e4, reference=16),
        lambda row, column: [row / GRID[0] * 16, column / GRID[1] * 16],
    ),
    "Perception Encoder": (
        Axial(theta=1e4, offset=1.0, across_first=True),
        lambda row, column: [column + 1, row + 1],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_angles_are_places_times_frequencies(name):
    axial, places = CASES[name]
    got = axial.angles(GRID, WIDTH).reshape(*GRID, WIDTH // 2)
    for row, column in np.ndindex(GRID):
        first, second = places(row, column)
        falling = axial.theta**-0.5
        want = [first, first * falling, second, second * falling]
        np.testing.assert_allclose(got[row, column], want, rtol=1e-5)


def test_both_layouts_of_pairs_turn_complex_numbers():
    x = jax.random.normal(jax.random.key(0), (1, 6, 2, WIDTH))
    angles = Axial(theta=100.0).angles(GRID, WIDTH)[None]
    rotation = Rotation(cos=jnp.cos(angles), sin=jnp.sin(angles))
    turned = np.exp(1j * angles)[:, :, None]
    want = (x[..., 0::2] + 1j * x[..., 1::2]) * turned
    got = np.asarray(rotate(x, rotation, interleaved=True))
    np.testing.assert_allclose(got[..., 0::2] + 1j * got[..., 1::2], want, atol=1e-6)
    want = (x[..., :4] + 1j * x[..., 4:]) * turned
    got = np.asarray(rotate(x, rotation, interleaved=False))
    np.testing.assert_allclose(got[..., :4] + 1j * got[..., 4:], want, atol=1e-6)


def test_what_is_no_square_needs_a_grid():
    assert square(9) == (3, 3)
    with pytest.raises(UserError, match="12 patches are no square"):
        square(12)


@pytest.fixture(scope="module")
def drawn():
    """A small rotary tower, its parameters and three images that are not square."""
    module, config = towers.build(CONFIG, dtype="float32")
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda s: rng.normal(size=s.shape).astype(np.float32) / 2, towers.abstract_params(module)
    )
    image = rng.normal(size=(3, 44, 40, 3)).astype(np.float32)
    return module, config, params, {"image": image}


def test_a_tower_resumes_at_the_places_that_it_is_told(drawn):
    module, config, params, batch = drawn
    tower = towers.Tower(
        kind="image", module=module, config=config, prepare=None, spec="", digest=""
    )
    want = tower.apply(params, batch)
    below = tower.apply(params, batch, layer=1)
    rest = (params, below.tokens, below.mask)
    got = tower.resume(*rest, start=1, grid=(11, 10))
    np.testing.assert_allclose(got.tokens, want.tokens, atol=2e-5)
    with pytest.raises(UserError, match="110 patches"):
        tower.resume(*rest, start=1)
    turned = tower.resume(*rest, start=1, grid=(10, 11))
    assert np.abs(np.asarray(turned.tokens - want.tokens)).max() > 0.1


def test_slices_on_a_cpu_compute_the_same(drawn):
    module, _, params, batch = drawn
    want = module.apply({"params": params}, batch)
    got = module.clone(inference=True).apply({"params": params}, batch)
    np.testing.assert_allclose(got.tokens, want.tokens, atol=5e-5)
