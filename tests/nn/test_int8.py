"""Frozen towers in int8: nearly the same features from a quarter of the bytes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ape_jax import config as config_lib
from ape_jax import towers
from ape_jax.features import fingerprint
from ape_jax.features.encode import FrozenTower
from ape_jax.nn import int8 as weights
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.planner import shapes

CAPTIONS = ["a red square", "the picture of a green bar", "a circle"]


def size(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def cosines(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_a_kernel_is_off_by_half_a_step_at_most(rng):
    kernel = rng.normal(size=(2, 16, 8)).astype(np.float32) * np.geomspace(1e-3, 10, 8)
    kernel[1, :, 3] = 0
    params = {"blocks": {"fc1": {"kernel": kernel, "bias": np.ones((2, 8), np.float32)}}}
    narrow = weights.quantized(params)["blocks"]["fc1"]
    assert narrow["kernel"].dtype == np.int8 and narrow[weights.SCALE].shape == (2, 8)
    back = weights.restored(weights.quantized(params))["blocks"]["fc1"]
    assert set(back) == {"kernel", "bias"}
    step = np.abs(kernel).max(axis=1, keepdims=True) / 127
    assert (np.abs(back["kernel"] - kernel) <= 0.5001 * step).all()


def test_numpy_gives_the_bits_of_xlas_quotients(rng):
    kernel = rng.normal(size=(3, 200, 257)).astype(np.float32) * rng.uniform(0.01, 10, 257)
    kernel = kernel.astype(np.float32)
    narrow = weights.quantized({"blocks": {"fc1": {"kernel": kernel}}})["blocks"]["fc1"]
    scale = jnp.abs(jnp.asarray(kernel)).max(axis=-2) / 127.0
    np.testing.assert_array_equal(narrow[weights.SCALE], scale)
    np.testing.assert_array_equal(narrow["kernel"], jnp.round(kernel / scale[..., None, :]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_product_is_that_of_the_restored_kernel(tiny, dtype):
    narrow = towers.load(tiny / "text", kind="text", dtype=dtype, param_dtype="int8")
    plain = towers.load(tiny / "text", kind="text", dtype="float32")
    batch = jax.tree.map(jnp.asarray, narrow.prepare(CAPTIONS))
    want = plain.tower.apply(weights.restored(narrow.params), batch).tokens
    bound = 1e-5 if dtype == "float32" else 3e-2
    got = narrow(batch).tokens
    assert np.abs(np.asarray(got - want)).max() < bound * np.abs(np.asarray(want)).max()


def test_the_features_of_a_real_tower_stay_what_they_were(rng):
    plain = towers.load("demo:vit_s14", image_size=56, dtype="float32")
    narrow = towers.load("demo:vit_s14", image_size=56, dtype="float32", param_dtype="int8")
    batch = plain.prepare(list(rng.integers(0, 256, (8, 60, 60, 3), np.uint8)))
    for options in ({"layer": 9, "pooling": "cls+mean"}, {"layer": -1}):
        found = cosines(narrow(batch, **options).pooled, plain(batch, **options).pooled)
        assert found.min() >= 0.999
    assert size(narrow.params["blocks"]) < 0.26 * size(plain.params["blocks"])


def test_a_cache_of_other_weights_is_another_cache(tiny):
    parts = []
    for param_dtype in ("float32", "int8"):
        tower = towers.load(tiny / "text", kind="text", param_dtype=param_dtype)
        reader = FrozenTower(tower=tower.tower, params=tower.params, mesh=mesh_lib.make_mesh(1))
        parts.append(fingerprint.tower_parts(reader))
    assert {k for k in parts[0] | parts[1] if parts[0].get(k) != parts[1].get(k)} == {
        "option weights"
    }


def test_a_plan_has_the_bytes_that_a_run_holds(tiny_config):
    tiny_config.text.param_dtype = "int8"
    real = towers.load(tiny_config.text.tower, kind="text", dtype="float32", param_dtype="int8")
    planned = shapes.abstract_towers(config_lib.resolve(tiny_config))

    def described(tree):
        return jax.tree.map(lambda x: (x.shape, np.dtype(x.dtype).name), tree)

    assert described(planned.params["text_tower"]) == described(dict(real.params))
