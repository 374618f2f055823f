"""Ids of several columns, groups, smoothing and normalisation against their definitions."""

import functools

import jax
import numpy as np
import pytest
import torch
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ape_jax.align import losses
from ape_jax.errors import UserError

B, E = 48, 16
SCALARS = {"softmax": (20.0,), "sigmoid": (20.0, -8.0)}
IMAGES = np.arange(B, dtype=np.int32) * 7 % 20
TEXTS = np.arange(B, dtype=np.int32) * 5 % 13
IDS = np.stack([IMAGES, TEXTS], axis=1)
TEXT_IDS = np.stack([IMAGES, np.roll(TEXTS, 1)], axis=1)
EITHER = {
    "two columns": {"ids": IDS},
    "texts of their own": {"ids": IDS, "text_ids": TEXT_IDS},
    "groups": {"ids": IMAGES, "groups": 4},
    "groups without ids": {"groups": 3},
}
CASES = [(name, case, options) for name in SCALARS for case, options in EITHER.items()]
CASES += [
    ("softmax", "smoothing", {"smoothing": 0.1}),
    ("softmax", "smoothing what is seen", {"smoothing": 0.3, "ids": IDS, "groups": 2}),
    ("sigmoid", "square", {"normalize": "square", "ids": IMAGES}),
    ("sigmoid", "square in groups", {"normalize": "square", "groups": 4}),
]


def arguments(name):
    rng = np.random.default_rng(0)
    zimg = rng.normal(size=(B, E))
    ztxt = zimg + rng.normal(size=(B, E))
    zimg, ztxt = (
        (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32) for z in (zimg, ztxt)
    )
    return zimg, ztxt, *(np.float32(s) for s in SCALARS[name])


@functools.cache
def program(function, arrays, **options):
    def fn(ids, *args):
        return getattr(losses, function)(*args, **dict(zip(arrays, ids)), **options)

    scalars = SCALARS[function.removesuffix("_reference")]
    return jax.jit(jax.value_and_grad(fn, argnums=tuple(range(1, 3 + len(scalars)))))


def run(function, args, options, **more):
    """Value and gradients; ids are arguments and no constants."""
    arrays = tuple(name for name in options if name.endswith("ids"))
    rest = {name: value for name, value in options.items() if name not in arrays}
    return program(function, arrays, **rest, **more)([options[name] for name in arrays], *args)


def exact(name, options):
    with jax.enable_x64(True):
        args = tuple(np.float64(a) for a in arguments(name))
        return jax.device_get(run(f"{name}_reference", args, options))


def assert_close(ours, theirs, tolerance=1e-5):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape and np.abs(a - b).max() <= tolerance * np.abs(b).max()


@pytest.mark.parametrize("devices", [0, 8])
@pytest.mark.parametrize(("name", "case", "options"), CASES, ids=lambda v: str(v)[:24])
def test_value_and_every_gradient_equal_the_reference(name, case, options, devices):
    args, mesh = arguments(name), None
    if devices:
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
        rows, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
        args = jax.device_put(args, (rows, rows) + (whole,) * len(args[2:]))
    assert_close(run(name, args, options, mesh=mesh), exact(name, options))
    plain = run(name, args, {}, mesh=mesh)[0]
    assert abs(float(run(name, args, options, mesh=mesh)[0] - plain)) > 1e-4  # It matters.


def torch_cross_entropy(logits, target, smoothing):
    return torch.nn.functional.cross_entropy(logits, target, label_smoothing=smoothing)


@pytest.mark.parametrize("ids", [None, IDS], ids=["no ids", "ids"])
def test_smoothing_is_torchs_over_the_columns_that_a_row_sees(ids):
    zimg, ztxt, scale = (torch.tensor(a, dtype=torch.float64) for a in arguments("softmax"))
    zimg.requires_grad_()
    logits = scale * zimg @ ztxt.T
    total = 0.0
    for i in range(B):
        seen = np.ones(B, bool) if ids is None else (ids != ids[i]).all(1) | (np.arange(B) == i)
        own = torch.tensor([int(seen[:i].sum())])
        for row in (logits[i], logits[:, i]):
            total = total + torch_cross_entropy(row[torch.tensor(seen)][None], own, 0.2)
    (total / (2 * B)).backward()
    options = {"smoothing": 0.2} | ({} if ids is None else {"ids": ids})
    value, gradients = run("softmax", arguments("softmax"), options)
    assert_close((value, gradients[0]), (total.item() / (2 * B), zimg.grad.numpy()))


@pytest.mark.parametrize("name", SCALARS)
@pytest.mark.parametrize("normalize", ["batch", "square"])
def test_groups_are_batches_of_their_own(name, normalize):
    options = {"normalize": normalize} if name == "sigmoid" else {}
    zimg, ztxt, *scalars = arguments(name)
    loss = functools.partial(getattr(losses, name), **options)
    parts = [
        loss(zimg[i : i + 12], ztxt[i : i + 12], *scalars, ids=IMAGES[i : i + 12])
        for i in range(0, B, 12)
    ]
    whole = loss(zimg, ztxt, *scalars, ids=IMAGES, groups=4)
    assert float(whole) == pytest.approx(float(np.mean(parts)), rel=1e-5)


def test_square_is_the_mean_over_all_questions():
    """As SAIL's `-mean(logsigmoid(labels * logits))`."""
    zimg, ztxt, scale, bias = (torch.tensor(a) for a in arguments("sigmoid"))
    logits = scale * zimg @ ztxt.T + bias
    labels = 2 * torch.eye(B) - 1
    expected = -torch.nn.functional.logsigmoid(labels * logits).mean()
    value = losses.sigmoid(*arguments("sigmoid"), normalize="square")
    assert float(value) == pytest.approx(float(expected), rel=1e-5)


def test_a_smoothed_loss_of_pairs_without_negatives_is_zero():
    value, gradients = run(
        "softmax", arguments("softmax"), {"ids": np.zeros(B, np.int32), "smoothing": 0.1}
    )
    assert float(value) == 0 and not any(np.any(g) for g in gradients)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("softmax", {"groups": 5}, "groups is 5.*48 pairs"),
        ("softmax", {"ids": np.zeros((B, 2, 2), int)}, r"ids has shape \(48, 2, 2\)"),
        ("softmax", {"text_ids": TEXTS}, r"text_ids has shape \(48,\) and ids None"),
        ("sigmoid", {"ids": IMAGES, "text_ids": IDS}, "make them the same"),
        ("sigmoid", {"normalize": "rows"}, 'write "batch" or "square"'),
    ],
)
def test_what_cannot_be_computed_is_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        getattr(losses, name)(*arguments(name), **options)
