"""Prefixes of embeddings that are trained as embeddings: value and gradients beside torch's."""

import functools

import jax
import numpy as np
import pytest
import torch
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ape_jax.align.losses import objective
from ape_jax.align.losses.objective import Objective
from ape_jax.config import Config

B, E, POSITIVES, GROUPS = 16, 12, 2, 2
DIMS = (3, 8)
IDS = np.arange(B, dtype=np.int32) % 6
SCALARS = {"softmax": (5.0, None), "sigmoid": (5.0, -2.0)}


def embeddings():
    rng = np.random.default_rng(0)
    zimg = rng.normal(size=(B, E))
    ztxt = np.repeat(zimg, POSITIVES, axis=0) + rng.normal(size=(B * POSITIVES, E))
    return [(z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32) for z in (zimg, ztxt)]


def expected(name):
    """Kusupati et al. (2205.13147): the losses of all widths, here their mean, in float64."""
    zimg, ztxt = (torch.tensor(z, dtype=torch.float64, requires_grad=True) for z in embeddings())
    scale, bias = SCALARS[name]
    ids, group = torch.tensor(IDS), torch.arange(B) // (B // GROUPS)
    own = torch.eye(B, dtype=torch.bool)
    seen = (ids[:, None] != ids) & (group[:, None] == group) | own
    total = 0.0
    for width in (E, *DIMS):
        image, texts = zimg[:, :width], ztxt[:, :width]
        if width < E:  # All numbers have unit length as they come.
            image, texts = (torch.nn.functional.normalize(z) for z in (image, texts))
        for p in range(POSITIVES):
            text = texts[p::POSITIVES]
            logits = scale * image @ text.T
            if name == "sigmoid":
                signed = torch.where(own, logits + bias, -(logits + bias))
                value = -torch.nn.functional.logsigmoid(signed)[seen].sum() / B
            else:
                logits = logits.masked_fill(~seen, float("-inf"))
                cross_entropy = torch.nn.functional.cross_entropy
                value = sum(cross_entropy(x, torch.arange(B)) for x in (logits, logits.T)) / 2
            total = total + value / (POSITIVES * (1 + len(DIMS)))
    total.backward()
    return total.item(), zimg.grad.numpy(), ztxt.grad.numpy()


@functools.cache
def program(name, dims, devices, impl):
    made = Objective(name=name, dims=dims, positives=POSITIVES, groups=GROUPS, impl=impl)
    mesh = None
    if devices:
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
    scale, bias = (None if x is None else np.float32(x) for x in SCALARS[name])
    return mesh, jax.jit(
        jax.value_and_grad(
            lambda zimg, ztxt, ids: made(zimg, ztxt, scale, bias, ids, mesh), argnums=(0, 1)
        )
    )


@pytest.mark.parametrize(
    ("name", "devices", "impl"),
    [
        ("softmax", 0, "dense"),
        ("softmax", 8, "ring"),
        ("sigmoid", 8, "dense"),
        ("sigmoid", 0, "ring"),
    ],
)
def test_value_and_gradients_are_those_of_all_widths(name, devices, impl):
    mesh, run = program(name, DIMS, devices, impl)
    arrays = (*embeddings(), IDS)
    if mesh is not None:
        arrays = jax.device_put(arrays, NamedSharding(mesh, P("data")))
    value, gradients = run(*arrays)
    wanted, *slopes = expected(name)
    assert float(value) == pytest.approx(wanted, rel=1e-5)
    for ours, theirs in zip(gradients, slopes, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def test_without_dims_it_is_the_loss_of_all_numbers():
    arrays = (*embeddings(), IDS)
    plain, both = (program("softmax", dims, 0, "dense")[1](*arrays)[0] for dims in ((), DIMS))
    assert float(plain) != pytest.approx(float(both), rel=1e-3)


def test_the_config_names_them():
    config = Config().replace({"loss.dims": (64, 128)})
    assert objective.from_config(config.loss).dims == (64, 128)
    assert objective.from_config(Config().loss).dims == ()
