"""Embedding in chunks: the gradient of one big batch, on the memory of a small one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ape_jax import towers
from ape_jax.align import heads
from ape_jax.align.chunks import embed_in_chunks
from ape_jax.align.model import Model, Side
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.training import step as step_lib

BATCH = 128


@pytest.fixture(scope="module")
def model(tiny):
    """Both towers trained, as CLIP does."""
    options = {"dtype": "float32"}
    image = towers.load(str(tiny / "image"), kind="image", **options)
    text = towers.load(str(tiny / "text"), kind="text", **options)
    return Model(
        image=Side(tower=image, head=heads.Linear(16, jnp.float32), tune="full", pooling="cls"),
        text=Side(
            tower=text, head=heads.PooledLinear(16, text.config, dtype=jnp.float32), tune="full"
        ),
    )


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    mask = np.arange(16) < rng.integers(2, 17, size=(BATCH, 1))
    index = np.arange(BATCH, dtype=np.int32)
    index[-5:] = index[:5]  # The same images once more, in other chunks.
    return {
        "image": rng.normal(size=(BATCH, 32, 32, 3)).astype(np.float32),
        "ids": np.where(mask, rng.integers(4, 18, size=(BATCH, 16)), 0).astype(np.int32),
        "mask": mask,
        "index": index,
    }


def gradient(model, mesh, chunks):
    def loss(trainable, frozen, batch):
        return step_lib.contrastive_loss(
            model, "softmax", mesh, trainable, frozen, batch, chunks=chunks
        )

    return jax.jit(jax.value_and_grad(loss))


@pytest.mark.parametrize("devices", [None, 8])
def test_loss_and_gradient_in_chunks_are_those_of_the_whole_batch(model, batch, devices):
    trainable, frozen = model.init(0)
    mesh = None if devices is None else mesh_lib.make_mesh(devices)
    if mesh is not None:
        batch = mesh_lib.place_batch(batch, mesh)
        trainable = mesh_lib.place_replicated(trainable, mesh)
    value, want = gradient(model, mesh, 1)(trainable, frozen, batch)
    in_chunks, got = gradient(model, mesh, 4)(trainable, frozen, batch)
    np.testing.assert_allclose(in_chunks, value, rtol=1e-6)
    for ours, whole in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert np.abs(ours - whole).max() <= 1e-5 * np.abs(whole).max() + 1e-9


def test_chunks_need_an_eighth_of_the_activation_memory(model, batch):
    trainable, frozen = model.init(0)

    def temporary(chunks):
        compiled = gradient(model, None, chunks).lower(trainable, frozen, batch).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # Gradients are there in either form, and the inputs in chunks beside the inputs.
    size = sum(x.nbytes for x in jax.tree.leaves((trainable, batch)))
    assert temporary(16) - size <= (temporary(1) - size) / 8


def test_rows_come_back_in_order_and_chunks_have_keys_of_their_own():
    x = jnp.arange(24.0).reshape(24, 1)
    mesh = mesh_lib.make_mesh(2)
    z = embed_in_chunks(lambda part, rng: part * 2, x, None, 3, mesh)
    np.testing.assert_array_equal(z, 2 * x)
    noise = embed_in_chunks(
        lambda part, rng: jax.random.normal(rng, part.shape), x, jax.random.key(0), 3
    )
    assert len(np.unique(noise)) == 24


def test_rows_that_cannot_be_cut_are_refused():
    with pytest.raises(ValueError, match="10 rows"):
        embed_in_chunks(lambda part, rng: part, jnp.ones((10, 2)), None, 4)
