"""What is trained, split over a part of the mesh: the same training, less of it on each device."""

import json
import shutil

import jax
import numpy as np
import optax
import pytest

from ape_jax import config as config_lib
from ape_jax.errors import UserError
from ape_jax.features.dataset import FeatureStore
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.runs import build
from ape_jax.training import loop, run
from ape_jax.training.folds import fixed
from ape_jax.training.input import opened

RULES = (
    ("image_tower/.*", "replicated"),
    ("text_tower/blocks/mlp/fc1/kernel", "1:fsdp"),
    ("text_tower/blocks/mlp/fc2/kernel", "-1:data+fsdp"),
)


@pytest.fixture
def clip_config(tiny_config):
    """Both towers trained, every parameter large enough to be split."""
    tiny_config.image.tune = tiny_config.text.tune = "full"
    tiny_config.image.standardize = False
    tiny_config.mesh.shard_min_size = 1
    tiny_config.train.steps, tiny_config.train.log_every = 4, 1
    tiny_config.train.checkpoint_every = 2
    tiny_config.data.eval = {}  # Evaluation would be compiled anew on every mesh.
    return tiny_config


def with_fsdp(config, fsdp):
    config.mesh.fsdp = fsdp
    return config_lib.resolve(config)


def losses(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line["train/loss"] for line in lines if "train/loss" in line]


@pytest.mark.slow
def test_the_losses_are_those_of_whole_parameters(clip_config, tmp_path):
    for fsdp in (1, 4, 8):
        loop.train_and_evaluate(with_fsdp(clip_config, fsdp), tmp_path / str(fsdp))
    clip_config.mesh.rules = RULES
    loop.train_and_evaluate(with_fsdp(clip_config, 4), tmp_path / "rules")
    expected = losses(tmp_path / "1")
    assert len(expected) == 4
    for fsdp in ("4", "8", "rules"):
        np.testing.assert_allclose(losses(tmp_path / fsdp), expected, rtol=1e-5)


def test_state_is_split_over_the_axis(clip_config):
    config = with_fsdp(clip_config, 4)
    made = run.prepare(config, opened.sources(config), build.load_towers(config), FeatureStore())
    assert dict(made.aligned.mesh.shape) == {"data": 2, "fsdp": 4}
    kernel = made.aligned.trainable["text_tower"]["blocks"]["mlp"]["fc1"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape)[-1] == kernel.shape[-1] // 4
    state = fixed.placed_state(made.aligned, optax.adam(1e-3))
    leaves = jax.tree.leaves((state.trainable, state.opt_state))
    on_one = sum(np.prod(x.sharding.shard_shape(x.shape)) for x in leaves)
    assert on_one < 0.3 * sum(x.size for x in leaves)


@pytest.mark.parametrize(("made", "taken_up"), [(1, 4), pytest.param(4, 2, marks=pytest.mark.slow)])
def test_a_checkpoint_is_taken_up_on_another_mesh(clip_config, tmp_path, made, taken_up):
    loop.train_and_evaluate(with_fsdp(clip_config, made), tmp_path)
    expected = losses(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints/4")
    (tmp_path / "summary.json").unlink()
    loop.train_and_evaluate(with_fsdp(clip_config, taken_up), tmp_path)
    assert len(expected) == 4
    np.testing.assert_allclose(losses(tmp_path), expected, rtol=1e-5)


def test_an_axis_that_does_not_divide_the_devices_is_refused():
    with pytest.raises(UserError, match=r"config\.mesh\.fsdp: 3 does not divide the 8 devices"):
        mesh_lib.make_mesh(fsdp=3)


def test_arrays_lie_where_rules_say(clip_config):
    clip_config.image.tune = "frozen"
    clip_config.mesh.rules = RULES
    config = with_fsdp(clip_config, 4)
    made = run.prepare(config, opened.sources(config), build.load_towers(config), FeatureStore())
    assert all(
        x.sharding.is_fully_replicated for x in jax.tree.leaves(made.aligned.frozen["image_tower"])
    )
    state = fixed.placed_state(made.aligned, optax.adam(1e-3))
    trees = (made.aligned.trainable, state.trainable, state.opt_state[0].mu, state.opt_state[0].nu)
    for tree in trees:
        mlp = tree["text_tower"]["blocks"]["mlp"]
        assert mlp["fc1"]["kernel"].sharding.shard_shape((2, 32, 64)) == (2, 8, 64)
        assert mlp["fc2"]["kernel"].sharding.shard_shape((2, 64, 32)) == (2, 64, 4)
        # By size, as no rule names it.
        out = tree["text_tower"]["blocks"]["attention"]["out"]["kernel"]
        assert out.sharding.shard_shape((2, 32, 32)) == (2, 32, 8)


def test_a_rule_that_matches_nothing_is_refused_before_the_run(clip_config, tmp_path):
    clip_config.mesh.rules = (("text_towr/.*", "replicated"),)
    with pytest.raises(UserError, match=r"config\.mesh\.rules: 'text_towr/\.\*' matches no"):
        loop.train_and_evaluate(with_fsdp(clip_config, 1), tmp_path)
