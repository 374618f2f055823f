"""Every leaf of every kind of tower is in a group, and each mode trains the groups it names."""

import jax
import numpy as np
import pytest

from ape_jax.align.tuning import selection
from ape_jax.align.tuning.tuned import Tuned
from ape_jax.config import tune as tune_lib
from ape_jax.errors import UserError

FAMILIES = ("vit", "dinov2", "clip_vision", "siglip", "bert", "clip_text", "mpnet")


def init(tower, tune, **changes):
    pooling = tower.config.pooling if tower.config.kind == "image" else "none"
    tuned = Tuned(tower=tower.tower, tune=tune, **{"pooling": pooling, **changes})
    trees = jax.eval_shape(tuned.init, jax.random.key(0), tower.params)
    return [{name: leaf.shape for name, leaf in selection.flatten(t).items()} for t in trees]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_leaf_has_a_group(random_tower, family):
    for name in selection.flatten(random_tower(family).params):
        assert selection.group(name) != name


def test_a_leaf_that_no_rule_covers_is_a_group_of_its_own():
    assert selection.group("blocks/gate/weight") == "blocks/gate/weight"
    tree = {"image_tower": {"blocks": {"gate": {"weight": np.ones(3)}}}}
    assert [s.group for s in selection.shares(tree, {})] == ["blocks/gate/weight"]


@pytest.mark.parametrize("tune", ["layernorm", "bitfit", "adapter+layernorm"])
def test_modes_that_train_by_group_refuse_a_leaf_that_is_in_none(tune):
    with pytest.raises(UserError, match=r"'blocks/gate/weight' is in none; .*groups="):
        selection.is_trained("blocks/gate/weight", tune_lib.parse(tune))


def test_other_modes_do_not_need_the_group_of_a_leaf():
    trained = {
        tune: selection.is_trained("blocks/gate/weight", tune_lib.parse(tune))
        for tune in ("full", "top:1", "frozen", "lora", "append")
    }
    assert trained == {"full": True, "top:1": True, "frozen": False, "lora": False, "append": False}


def test_top_refuses_a_leaf_that_the_frozen_blocks_may_read():
    top = tune_lib.parse("top:1")
    with pytest.raises(UserError, match=r"read the tower's 'rope/table'; .*shared="):
        selection.is_trained("rope/table", top)
    assert not selection.is_trained("rope/table", top, shared=("rope",))


@pytest.mark.parametrize("tune", ["frozen", "full", "layernorm", "bitfit", "adapter+layernorm"])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_leaf_is_in_one_tree_under_its_own_name(random_tower, family, tune):
    tower = random_tower(family)
    trainable, frozen = init(tower, tune)
    assert not trainable.keys() & frozen.keys()
    own = {name: leaf.shape for name, leaf in selection.flatten(tower.params).items()}
    both = {name: s for name, s in {**trainable, **frozen}.items() if "/adapter/" not in name}
    assert both == own


def test_layernorm_and_bitfit_train_what_they_are_named_for(random_tower):
    norms, _ = init(random_tower("dinov2"), "layernorm")
    assert {name.split("/")[-2] for name in norms} == {"norm1", "norm2", "norm"}
    assert "blocks/scale1/scale" not in norms
    biases, frozen = init(random_tower("mpnet"), "bitfit")
    assert all(name.endswith("/bias") for name in biases)
    assert not any(name.endswith("/bias") for name in frozen)
    assert "relative_bias" in frozen


def test_nothing_above_the_layer_that_is_read_is_kept(random_tower):
    trainable, frozen = init(random_tower("vit"), "layernorm", layer=2)
    assert trainable["blocks/norm1/scale"] == (2, 32) and "norm/scale" not in trainable
    assert frozen["blocks/attention/query/kernel"] == (2, 32, 32) and "norm/scale" not in frozen


def test_the_map_head_is_trained_only_where_it_pools(random_tower):
    assert "head/probe" in init(random_tower("siglip"), "full")[0]
    trainable, frozen = init(random_tower("siglip"), "full", pooling="mean")
    assert not any(name.startswith("head/") for name in {**trainable, **frozen})


def test_a_norm_that_only_the_pooled_vector_sees_is_not_trained_without_pooling(random_tower):
    trainable, frozen = init(random_tower("clip_vision"), "layernorm", pooling="none")
    assert "norm/scale" not in trainable and "norm/scale" in frozen
    assert "pre_norm/scale" in trainable


def test_top_cuts_the_blocks_in_two(random_tower):
    trainable, frozen = init(random_tower("siglip"), "top:2")
    assert trainable["blocks/mlp/fc1/kernel"][0] == 2 and frozen["blocks/mlp/fc1/kernel"][0] == 1
    assert {"norm/scale", "head/probe"} <= trainable.keys()
    assert "embed/position" in frozen
    trainable, frozen = init(random_tower("mpnet"), "top:3")
    assert "relative_bias" in frozen and not any(n.startswith("blocks/") for n in frozen)


def test_append_adds_a_block_and_trains_the_norm_after_it(random_tower):
    trainable, frozen = init(random_tower("vit"), "append")
    own = {name.split("/", 1)[1] for name in frozen if name.startswith("blocks/")}
    appended = {name.split("/", 1)[1] for name in trainable if name.startswith("appended/")}
    assert own == appended
    assert trainable.keys() - {f"appended/{n}" for n in own} == {"norm/scale", "norm/bias"}
    inner, _ = init(random_tower("vit"), "append", layer=1)
    assert all(name.startswith("appended/") for name in inner)


def test_trained_leaves_are_float32_whatever_the_tower_is_kept_in(random_tower):
    tower = random_tower("bert")
    half = jax.tree.map(lambda x: x.astype("bfloat16"), tower.params)
    trainable, frozen = selection.split(half, lambda name: name.endswith("bias"))
    assert {x.dtype.name for x in jax.tree.leaves(trainable)} == {"float32"}
    assert {x.dtype.name for x in jax.tree.leaves(frozen)} == {"bfloat16"}


def test_a_leaf_in_both_trees_is_an_error():
    with pytest.raises(ValueError, match="norm/scale"):
        selection.merge({"norm": {"scale": np.ones(2)}}, {"norm": {"scale": np.ones(2)}})


def test_shares_count_each_group_of_each_side():
    tower = {"blocks": {"norm1": {"scale": np.ones((2, 3))}}}
    other = {"blocks": {"mlp": {"fc1": {"kernel": np.ones((2, 3, 4)), "bias": np.ones((2, 4))}}}}
    trainable = {"image_tower": tower, "text_head": {"a": np.ones(5)}, "loss": {"b": np.ones(())}}
    trainable["batch_stats"] = {"text_head": {"norm_0": {"running_mean": np.ones(2)}}}
    found = selection.shares(trainable, {"image_tower": other, "text_tower": tower})
    assert [(s.side, s.group, s.parameters, s.trained) for s in found] == [
        ("image", "norm scale", 6, 6),
        ("image", "bias", 8, 0),
        ("image", "kernel", 24, 0),
        ("text", "norm scale", 6, 0),
        ("text", "head", 5, 5),  # Running statistics are no parameters.
        ("both", "loss", 1, 1),
    ]
    assert selection.counts(trainable, {"image_tower": other, "text_tower": tower}) == (12, 38)
