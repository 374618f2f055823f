"""Negative captions that only images are compared with: value and gradients beside torch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ape_jax.align import losses
from ape_jax.align.losses.hard import Hard
from ape_jax.align.losses.objective import Objective
from ape_jax.errors import UserError
from tests.align.losses.negclip import CAPTIONS, IDS, SCALE, E, H, embeddings, expected, hard_ids


@pytest.mark.parametrize(
    ("impl", "devices", "groups", "smoothing"),
    [("dense", 0, 1, 0.0), ("dense", 8, 2, 0.2), ("ring", 0, 2, 0.2), ("ring", 8, 1, 0.1)],
)
def test_value_and_gradients_are_negclips(impl, devices, groups, smoothing):
    mesh, arrays = None, (*embeddings(), IDS, hard_ids(), CAPTIONS)
    if devices:
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
        arrays = jax.device_put(arrays, NamedSharding(mesh, P("data")))

    def loss(zimg, ztxt, zhard, ids, of_hard, captions):
        hard = Hard(zhard, of_hard, captions)
        options = {"groups": groups, "smoothing": smoothing, "mesh": mesh, "impl": impl}
        return losses.softmax(zimg, ztxt, SCALE, ids=ids, hard=hard, **options)

    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(*arrays)
    wanted, slopes = expected(groups, smoothing)
    assert float(value) == pytest.approx(wanted, rel=1e-5)
    for ours, theirs in zip(gradients, slopes, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("impl", ["dense", "ring"])
def test_the_scale_has_its_gradient_too(impl):
    zimg, ztxt, zhard = map(jnp.asarray, embeddings())
    hard = Hard(zhard, jnp.asarray(hard_ids()), jnp.asarray(CAPTIONS))

    def loss(scale):
        return losses.softmax(zimg, ztxt, scale, ids=IDS, hard=hard, impl=impl)

    slope = float(jax.jit(jax.grad(loss))(SCALE))
    step = np.float32(0.05)
    apart = float(loss(SCALE + step)) - float(loss(SCALE - step))
    assert slope == pytest.approx(apart / 0.1, rel=2e-3)


def test_the_objective_parts_captions_from_negatives():
    zimg, ztxt, zhard = embeddings()
    text = np.concatenate([CAPTIONS, hard_ids()], axis=1)
    text[text < 0] = np.broadcast_to(CAPTIONS, text.shape)[text < 0]  # As the sampler fills in.
    batch = {"index": IDS, "text": text}
    made = Objective(hard=H)
    texts = np.concatenate([ztxt[:, None], zhard], axis=1).reshape(-1, E)
    value = made(zimg, texts, SCALE, None, made.ids(batch), None, made.hard_ids(batch))
    assert float(value) == pytest.approx(expected(1, 0.0)[0], rel=1e-5)


def test_shapes_that_do_not_match_are_refused(unchecked):
    zimg, ztxt, zhard = embeddings()
    with pytest.raises(UserError, match=r"hard has z \(16, 3, 7\)"):
        losses.softmax(zimg, ztxt, SCALE, hard=Hard(zhard[..., :7], hard_ids(), CAPTIONS))
