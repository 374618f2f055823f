"""Checkpoints: only what was trained, and a full disk in one sentence."""

import errno
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ape_jax.errors import UserError
from ape_jax.runs.checkpoint import Checkpoints
from ape_jax.training.step import init_state

META = {"text tower": {"spec": "demo:x", "digest": "00"}}


@pytest.fixture
def state():
    return init_state({"head": {"kernel": jnp.arange(6.0).reshape(2, 3)}}, optax.adam(1e-3))


def test_state_and_fixed_parameters_come_back(tmp_path, state):
    checkpoints = Checkpoints(tmp_path)
    fixed = {"statistics": {"center": jnp.ones(4)}}
    saved = state.replace(step=state.step + 7)
    checkpoints.save(saved, fixed, META)
    checkpoints.close()
    again = Checkpoints(tmp_path)
    restored, statistics = again.restore(state, {"statistics": {"center": jnp.zeros(4)}})
    assert int(restored.step) == 7
    again.check(META)
    np.testing.assert_array_equal(restored.trainable["head"]["kernel"], np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(statistics["statistics"]["center"], np.ones(4))
    trainable, _ = again.restore_model(state.trainable, fixed)
    np.testing.assert_array_equal(trainable["head"]["kernel"], np.arange(6).reshape(2, 3))


def test_running_statistics_come_back_and_lie_on_disk_as_in_the_first_version(tmp_path):
    """A checkpoint from when statistics were parameters has the same arrays by the same names."""
    stats = {"head": {"norm_0": {"running_mean": jnp.full(3, 2.0)}}}
    params = {"head": {"norm_0": {"scale": jnp.ones(3)}}}
    state = init_state({**params, "batch_stats": stats}, optax.adam(1e-3), ema=0.5)
    assert "running" not in str(jax.tree.structure(state.opt_state))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state.replace(step=jnp.int32(4)), {}, META)
    checkpoints.close()
    written = json.loads((tmp_path / "checkpoints/4/opt_state/_METADATA").read_text())
    learned = ("inner_states", "learned", "inner_state", "0", "mu", "head", "norm_0")
    tree = written["tree_metadata"]
    assert {str((*learned, name)) for name in ("scale", "running_mean")} <= tree.keys()
    written = json.loads((tmp_path / "checkpoints/4/trainable/_METADATA").read_text())
    assert str(("head", "norm_0", "running_mean")) in written["tree_metadata"]
    fresh = jax.tree.map(jnp.zeros_like, state)
    restored, _ = Checkpoints(tmp_path).restore(fresh, {})
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    again = restored.replace(step=state.step)
    assert jax.tree.all(jax.tree.map(np.array_equal, again, state))


def test_only_the_newest_are_kept(tmp_path, state):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(state.replace(step=jnp.int32(step)), {}, META)
    checkpoints.close()
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"2", "3"}


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "x"), ValueError("write failed: No space left on device")]
)
def test_full_disk_names_the_last_good_step(tmp_path, state, monkeypatch, error):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state.replace(step=jnp.int32(4)), {}, META)
    checkpoints.wait()

    def full(*args, **kwargs):
        raise error

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(UserError, match=r"no space left .* step 4") as raised:
        checkpoints.save(state.replace(step=jnp.int32(8)), {}, META)
    assert "\n" not in str(raised.value)


def test_other_errors_are_not_dressed_up(tmp_path, state, monkeypatch):
    checkpoints = Checkpoints(tmp_path)

    def broken(*args, **kwargs):
        raise ValueError("a bug")

    monkeypatch.setattr(checkpoints._manager, "save", broken)
    with pytest.raises(ValueError, match="a bug") as raised:
        checkpoints.save(state, {}, META)
    assert not isinstance(raised.value, UserError)


def test_checkpoint_of_another_tower_is_refused(tmp_path, state):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state.replace(step=jnp.int32(1)), {}, META)
    checkpoints.wait()
    with pytest.raises(UserError, match="another text tower"):
        checkpoints.check({"text tower": {"spec": "demo:x", "digest": "11"}})


@pytest.mark.parametrize("part", ["meta", "trainable", "opt_state"])
def test_damaged_checkpoint_names_the_folder_and_the_older_one(tmp_path, state, part):
    checkpoints = Checkpoints(tmp_path)
    for step in (2, 4):
        checkpoints.save(state.replace(step=jnp.int32(step)), {}, META)
    checkpoints.close()
    shutil.rmtree(tmp_path / "checkpoints/4" / part)
    with pytest.raises(UserError, match=r"checkpoints/4 cannot be read .* from step 2") as raised:
        again = Checkpoints(tmp_path)
        again.check(META)
        again.restore(state, {})
    assert "\n" not in str(raised.value)


def test_file_in_the_place_of_the_directory_is_one_sentence(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(UserError, match="no directory"):
        Checkpoints(tmp_path)
