"""Embedding in chunks: the gradient of one big batch, on the memory of a small one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ape_jax import towers
from ape_jax.align import heads
from ape_jax.align.losses.chunks import embed_in_chunks
from ape_jax.align.model import Model, Side
from ape_jax.features import ragged
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.training import step as step_lib

BATCH = 128


@pytest.fixture(scope="module")
def pair(tiny):
    options = {"dtype": "float32"}
    return {kind: towers.read(str(tiny / kind), kind=kind, **options) for kind in ("image", "text")}


@pytest.fixture(scope="module")
def weights(pair):
    return {f"{kind}_tower": params for kind, (_, params) in pair.items()}


@pytest.fixture(scope="module")
def model(pair):
    """Both towers trained, as CLIP does."""
    image, text = (tower for tower, _ in pair.values())
    return Model(
        image=Side(tower=image, head=heads.Linear(16, jnp.float32), tune="full", pooling="cls"),
        text=Side(
            tower=text,
            head=heads.OnPooledText(heads.Linear(16, jnp.float32), text.config),
            tune="full",
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


@pytest.fixture(scope="module")
def ape(pair):
    """Both towers frozen, a token MLP on packed captions."""
    image, text = (tower for tower, _ in pair.values())
    head = heads.TokenMLP(32, text.config, depth=4, width=96, dtype=jnp.float32)
    return Model(
        image=Side(tower=image, head=heads.Identity(), pooling="cls"),
        text=Side(tower=text, head=head),
    )


@pytest.fixture(scope="module")
def encoded():
    """`encoded(groups)`: encoded images, and captions packed in so many groups."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 17, size=BATCH)
    tokens = ragged.from_rows([rng.normal(size=(n, 32)).astype(np.float32) for n in lengths])
    fixed = {
        "pooled": rng.normal(size=(BATCH, 32)).astype(np.float32),
        "index": np.arange(BATCH, dtype=np.int32),
    }

    def make(groups):
        rows = np.arange(BATCH)
        return fixed | tokens.batch(rows, groups, tokens.largest_group(rows, groups))

    return make


def gradient(model, mesh, chunks):
    def loss(trainable, frozen, batch):
        return step_lib.contrastive_loss(
            model, "softmax", mesh, trainable, frozen, batch, chunks=chunks
        )[0]

    return jax.jit(jax.value_and_grad(loss))


@pytest.mark.parametrize("devices", [None, 8])
def test_loss_and_gradient_in_chunks_are_those_of_the_whole_batch(model, weights, batch, devices):
    trainable, frozen = model.init(0, weights)
    mesh = None if devices is None else mesh_lib.make_mesh(devices)
    if mesh is not None:
        batch = mesh_lib.place_batch(batch, mesh)
        trainable = mesh_lib.place_replicated(trainable, mesh)
    assert_same(
        gradient(model, mesh, 4)(trainable, frozen, batch),
        gradient(model, mesh, 1)(trainable, frozen, batch),
    )


def assert_same(in_chunks, whole):
    np.testing.assert_allclose(in_chunks[0], whole[0], rtol=1e-6)
    for got, want in zip(jax.tree.leaves(in_chunks[1]), jax.tree.leaves(whole[1]), strict=True):
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max() + 1e-9


@pytest.mark.parametrize("devices", [1, 8])
def test_packed_captions_in_chunks_have_the_gradient_of_one_batch(ape, weights, encoded, devices):
    trainable, frozen = ape.init(0, weights)
    mesh = mesh_lib.make_mesh(devices)
    trainable = mesh_lib.place_replicated(trainable, mesh)
    cut, whole = (mesh_lib.place_batch(encoded(n * devices), mesh) for n in (4, 1))
    assert_same(
        gradient(ape, mesh, 4)(trainable, frozen, cut),
        gradient(ape, mesh, 1)(trainable, frozen, whole),
    )


@pytest.mark.parametrize("which", ["towers", "token head"])
@pytest.mark.usefixtures("fully_compiled")
def test_chunks_need_an_eighth_of_the_activation_memory(model, weights, batch, ape, encoded, which):
    model, batch = (model, batch) if which == "towers" else (ape, encoded(16))
    trainable, frozen = model.init(0, weights)

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
