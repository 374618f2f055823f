"""The global losses against their definitions and open_clip, on one, two and eight devices."""

import functools
import importlib.util
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ape_jax.align import losses
from ape_jax.errors import UserError

B, E = 48, 16
SCALARS = {"softmax": (20.0,), "sigmoid": (20.0, -8.0)}
REPEATED = np.arange(B, dtype=np.int32) * 7 % 20
UNIQUE = np.arange(B, dtype=np.int32) + 7
ON_MESHES = [
    pytest.param(ids, shape, id=f"{'no' if ids is None else 'repeated'} ids, {shape}")
    for ids in (None, REPEATED)
    for shape in ((1,), (2,), (8,), (2, 4))[: 3 if ids is None else 4]
]


def make_mesh(shape):
    axes = ("data", "fsdp")[: len(shape)]
    devices = jax.devices()[: int(np.prod(shape))]
    return jax.make_mesh(shape, axes, axis_types=(AxisType.Auto,) * len(shape), devices=devices)


def embeddings(seed=0, batch=B, noise=1.0):
    rng = np.random.default_rng(seed)
    zimg = rng.normal(size=(batch, E))
    ztxt = zimg + noise * rng.normal(size=(batch, E))
    return tuple((z / np.linalg.norm(z, axis=1, keepdims=True)).astype("f") for z in (zimg, ztxt))


def arguments(name, **kwargs):
    return (*embeddings(**kwargs), *(np.float32(s) for s in SCALARS[name]))


@functools.cache
def program(loss, **kwargs):
    """The jitted value and gradients (zimg, ztxt, scale, bias) of a loss, compiled once."""

    def fn(ids, *args):
        return getattr(losses, loss)(*args, ids=ids, **kwargs)

    name = loss.removesuffix("_reference")
    return jax.jit(jax.value_and_grad(fn, argnums=tuple(range(1, 3 + len(SCALARS[name])))))


def exact(name, args, ids=None):
    """The reference and its gradients in float64."""
    with jax.enable_x64(True):
        return jax.device_get(program(f"{name}_reference")(ids, *(np.float64(a) for a in args)))


def assert_close(ours, theirs, tolerance=1e-5):
    ours, theirs = jax.tree.leaves(ours), jax.tree.leaves(theirs)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


@pytest.mark.parametrize("ids, shape", ON_MESHES)
@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_value_and_every_gradient_equal_the_reference_on_a_mesh(name, ids, shape):
    mesh = make_mesh(shape)
    by_rows = NamedSharding(mesh, P(mesh.axis_names))
    args = arguments(name)
    sharded = jax.device_put(args, (by_rows, by_rows) + (NamedSharding(mesh, P()),) * len(args[2:]))
    sharded_ids = None if ids is None else jax.device_put(ids, by_rows)
    value, gradients = program(name, mesh=mesh)(sharded_ids, *sharded)
    assert value.dtype == jnp.float32 and value.shape == ()
    assert_close((value, gradients), exact(name, args, ids))
    for gradient in gradients[:2]:
        assert gradient.sharding.is_equivalent_to(by_rows, ndim=2)


@pytest.mark.parametrize("ids", [None, UNIQUE, REPEATED], ids=["no", "unique", "repeated"])
@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_without_a_mesh_equals_the_reference(name, ids):
    args = arguments(name)
    assert_close(program(name)(ids, *args), exact(name, args, ids))


@pytest.mark.parametrize("shape", [None, (8,)])
@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_outside_jit_equals_the_reference(name, shape):
    args = tuple(jnp.asarray(a) for a in arguments(name))
    mesh = None if shape is None else make_mesh(shape)
    assert_close(getattr(losses, name)(*args, mesh=mesh), exact(name, args)[0])


def open_clip_loss():
    """open_clip's loss module alone: importing the package would ask for torchvision."""
    (directory,) = importlib.util.find_spec("open_clip").submodule_search_locations
    spec = importlib.util.spec_from_file_location("open_clip_loss", Path(directory) / "loss.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_value_and_every_gradient_equal_open_clip(loss):
    args = arguments(loss)
    tensors = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in args]
    module = open_clip_loss()
    value = (module.ClipLoss if loss == "softmax" else module.SigLipLoss)()(*tensors)
    value.backward()
    expected = (value.item(), tuple(t.grad.numpy() for t in tensors))
    assert_close(exact(loss, args), expected, tolerance=1e-12)
    assert_close(program(loss)(None, *args), expected)


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_pairs_with_one_id_are_as_if_the_other_were_not_in_the_batch(name):
    args = arguments(name)
    logits = np.float64(args[2]) * (np.float64(args[0]) @ np.float64(args[1]).T) + sum(args[3:])
    total = 0.0
    for i in range(B):
        own = logits[i, i]
        # The batch as pair i sees it: itself and the pairs of other ids.
        seen = (REPEATED != REPEATED[i]) | (np.arange(B) == i)
        if name == "softmax":
            total += np.log(np.exp(logits[i, seen]).sum()) / 2 - own / 2
            total += np.log(np.exp(logits[seen, i]).sum()) / 2 - own / 2
        else:
            seen[i] = False
            total += np.log1p(np.exp(-own)) + np.log1p(np.exp(logits[i, seen])).sum()
    value = program(name)(REPEATED, *args)[0]
    assert_close(value, total / B)
    assert abs(float(value - program(name)(None, *args)[0])) > 1e-4


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_a_batch_without_negatives_is_finite(name):
    for batch in (1, 8):
        result = program(name)(np.zeros(batch, np.int32), *arguments(name, batch=batch))
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(result))
        if name == "softmax":
            assert not any(np.any(x) for x in jax.tree.leaves(result))


def test_a_softmax_loss_near_zero_keeps_its_digits():
    args = (*embeddings(noise=0.02), np.float32(60))
    value, gradients = program("softmax")(None, *args)
    cosines = np.float64(args[0]) @ np.float64(args[1]).T
    own, other = np.diag(cosines), ~np.eye(B, dtype=bool)
    by_image = (np.exp(60 * (cosines - own[:, None])) * other).sum(1)
    by_text = (np.exp(60 * (cosines - own)) * other).sum(0)
    expected = (np.log1p(by_image) + np.log1p(by_text)).mean() / 2
    assert expected < 1e-6
    assert float(value) == pytest.approx(expected, rel=1e-4)
    assert 0 < -float(gradients[2]) < 1e-6


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_large_scales_do_not_overflow(name):
    zimg, ztxt, _, *bias = arguments(name, noise=3.0)
    for scale in (1.0, 100.0, 1e4):
        result = program(name)(None, zimg, ztxt, np.float32(scale), *bias)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(result))


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_bfloat16_embeddings_are_accumulated_in_float32(name):
    zimg, ztxt, *scalars = arguments(name)
    zimg, ztxt = zimg.astype(jnp.bfloat16), ztxt.astype(jnp.bfloat16)
    value, gradients = program(name)(None, zimg, ztxt, *scalars)
    expected, expected_gradients = exact(name, (zimg, ztxt, *scalars))
    assert value.dtype == jnp.float32 and gradients[0].dtype == jnp.bfloat16
    assert_close(value, expected)
    assert_close(gradients[:2], expected_gradients[:2], tolerance=1e-2)
    assert_close(gradients[2:], expected_gradients[2:], tolerance=1e-4)


def compiled(name, devices, batch):
    mesh = make_mesh((devices,))
    by_rows, everywhere = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    z = jax.ShapeDtypeStruct((batch, 32), jnp.float32, sharding=by_rows)
    ids = jax.ShapeDtypeStruct((batch,), jnp.int32, sharding=by_rows)
    scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere)
    scalars = (scalar,) * len(SCALARS[name])
    return program(name, mesh=mesh).lower(ids, z, z, *scalars).compile()


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
@pytest.mark.usefixtures("fully_compiled")
def test_memory_is_shared_out_and_no_device_holds_the_whole_matrix(name):
    batch = 2048
    temp = {}
    for n in (1, 8):
        executable = compiled(name, n, batch)
        temp[n] = executable.memory_analysis().temp_size_in_bytes
        whole = re.search(rf"\[{batch},{batch}\]", executable.as_text())
        assert (whole is None) == (n > 1)
    # What does not shrink are the gathered embeddings, [batch, 32].
    slack = 8 * batch * 32 * 4
    assert temp[1] < 3.5 * batch**2 * 4 + slack
    assert temp[8] < temp[1] / 8 + slack


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "change, message",
    [
        ({"impl": "tree"}, r'impl="tree" is not .*; write "auto" or "dense" or "ring"'),
        ({"ztxt": np.ones((B, E + 1), np.float32)}, r"\(48, 16\) and ztxt \(48, 17\)"),
        ({"ids": np.arange(B - 1)}, r"ids has shape \(47,\)"),
    ],
)
@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_what_cannot_be_computed_is_refused(name, change, message):
    named = dict(zip(("zimg", "ztxt", "scale", "bias"), arguments(name))) | change
    with pytest.raises(UserError, match=message):
        getattr(losses, name)(**named)


def test_a_batch_that_does_not_divide_over_the_mesh_is_refused():
    with pytest.raises(UserError, match=r"has 12 pairs.*multiple of 8"):
        losses.softmax(*embeddings(batch=12), 1.0, mesh=make_mesh((8,)))
