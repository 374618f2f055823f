"""The naming engine on a made-up model."""

from types import SimpleNamespace

import numpy as np
import pytest

from ape_jax.errors import UserError
from ape_jax.towers.files import names
from ape_jax.towers.files.names import CONV, HEADS_IN, LEAD1, LINEAR, NameTable, Rule

TABLE = NameTable(
    rules=(
        Rule("pos", "pos", LEAD1),
        Rule("conv.weight", "conv", CONV),
        Rule("h.{i}.qkv.weight", ("blocks/q/kernel", "blocks/k/kernel"), LINEAR),
        Rule("h.{i}.norm.weight", "blocks/norm/scale"),
        Rule("h.{i}.norm.bias", "blocks/norm/bias"),
        Rule("all.kernel", "blocks/heads/kernel", HEADS_IN, stacked=True),
    ),
    prefixes=("", "model."),
    ignore=(r"(model\.)?extra\..*",),
    renames=((r"\.gamma$", ".weight"), (r"\.beta$", ".bias")),
)
SHAPES = {
    "pos": (5, 4),
    "conv": (2, 2, 3, 4),
    "blocks/q/kernel": (3, 4, 6),
    "blocks/k/kernel": (3, 4, 6),
    "blocks/norm/scale": (3, 4),
    "blocks/norm/bias": (3, 4),
    "blocks/heads/kernel": (3, 4, 6),
}


@pytest.fixture
def params():
    rng = np.random.default_rng(0)
    flat = {k: rng.normal(size=s).astype(np.float32) for k, s in SHAPES.items()}
    return names.unflatten_dict(flat, sep="/")


def tensors(arrays):
    shapes = {k: v.shape for k, v in arrays.items()}
    return SimpleNamespace(label="model.file", shapes=shapes, read=arrays.__getitem__)


def read(arrays, tables=(TABLE,)):
    file = tensors(arrays)
    plan, found = names.match(tables, file, SHAPES, heads=2)
    return names.load_params(plan, found, SHAPES, file.read, np.float32)


def equal(a, b):
    a, b = (names.flatten_dict(t, sep="/") for t in (a, b))
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.parametrize("prefix", ["", "model."])
def test_there_and_back(params, prefix):
    arrays = names.to_file(TABLE, params, heads=2, prefix=prefix)
    assert arrays[f"{prefix}h.0.qkv.weight"].shape == (12, 4)
    assert arrays[f"{prefix}conv.weight"].shape == (4, 3, 2, 2)
    assert arrays[f"{prefix}all.kernel"].shape == (3, 4, 2, 3)
    equal(read(arrays), params)


def test_older_spellings_are_read(params):
    arrays = names.to_file(TABLE, params, heads=2)
    for i in range(3):
        arrays[f"h.{i}.norm.gamma"] = arrays.pop(f"h.{i}.norm.weight")
        arrays[f"h.{i}.norm.beta"] = arrays.pop(f"h.{i}.norm.bias")
    equal(read(arrays), params)


def test_ignored_tensors_are_left_out_and_others_are_not(params):
    arrays = names.to_file(TABLE, params, heads=2)
    equal(read(arrays | {"extra.head": np.zeros(3)}), params)
    with pytest.raises(UserError, match=r"in the file but not in the model: unheard\.of"):
        read(arrays | {"unheard.of": np.zeros(3)})


def test_long_lists_are_cut_and_counted(params):
    arrays = names.to_file(TABLE, params, heads=2)
    with pytest.raises(UserError, match=r"x\.19 and 8 more"):
        read(arrays | {f"x.{i}": np.zeros(1) for i in range(20)})


def test_nothing_is_read_before_all_shapes_are_right(params):
    arrays = names.to_file(TABLE, params, heads=2)
    arrays["pos"] = arrays["pos"][:, :4]
    file = tensors(arrays)
    with pytest.raises(UserError, match=r"pos is \[1, 4, 4\] and should be \[1, 5, 4\]"):
        names.match((TABLE,), file, SHAPES, heads=2)


def test_a_table_without_a_rule_for_a_parameter_is_a_bug(params):
    with pytest.raises(AssertionError, match="no rule for"):
        names.match((TABLE,), tensors({}), SHAPES | {"new/kernel": (2,)}, heads=2)
