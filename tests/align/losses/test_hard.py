"""Negative captions that only images are compared with: value and gradients beside torch's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ape_jax.align import losses
from ape_jax.align.losses.hard import Hard
from ape_jax.align.losses.objective import Objective
from ape_jax.errors import UserError

B, E, H, SCALE = 16, 8, 3, np.float32(5.0)
IDS = np.arange(B, dtype=np.int32) % 11
CAPTIONS = np.arange(B, dtype=np.int32)[:, None]


def embeddings():
    rng = np.random.default_rng(0)
    zimg, ztxt, hard = (rng.normal(size=shape) for shape in ((B, E), (B, E), (B, H, E)))
    ztxt, hard = ztxt + zimg, hard + zimg[:, None]
    return [
        (z / np.linalg.norm(z, axis=-1, keepdims=True)).astype(np.float32)
        for z in (zimg, ztxt, hard)
    ]


def hard_ids():
    """Images with fewer negatives, and a negative that is the caption of another image."""
    ids = 100 + np.arange(B * H, dtype=np.int32).reshape(B, H)
    ids[::4, 2], ids[3], ids[1, 0] = -1, -1, 5
    return ids


def expected(groups, smoothing):
    """NegCLIP (2210.01936): the batch's negative captions beside its texts, for images only."""
    zimg, ztxt, hard = (
        torch.tensor(z, dtype=torch.float64, requires_grad=True) for z in embeddings()
    )
    ids, group, own = torch.tensor(IDS), torch.arange(B) // (B // groups), torch.eye(B).bool()
    seen = ((ids[:, None] != ids) & (group[:, None] == group)) | own
    of_hard = torch.tensor(hard_ids()).reshape(-1)
    beside = (of_hard >= 0) & (torch.tensor(CAPTIONS) != of_hard)
    beside &= group[:, None] == group.repeat_interleave(H)
    texts, scale = torch.cat([ztxt, hard.reshape(-1, E)]), float(SCALE)
    total = 0.0
    cross_entropy = functools.partial(torch.nn.functional.cross_entropy, label_smoothing=smoothing)
    for i in range(B):
        row = scale * zimg[i] @ texts.T
        kept = torch.cat([seen[i], beside[i]])
        total = total + cross_entropy(row[kept][None], seen[i, :i].sum()[None])
        column = scale * zimg @ ztxt[i]
        total = total + cross_entropy(column[seen[:, i]][None], seen[:i, i].sum()[None])
    (total / (2 * B)).backward()
    return (total / (2 * B)).item(), [z.grad.numpy() for z in (zimg, ztxt, hard)]


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
