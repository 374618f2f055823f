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
from ape_jax.runs.checkpoints import folders
from ape_jax.runs.checkpoints.checkpoint import Checkpoints
from ape_jax.storage import sealed
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


def saved(path, state, fixed, steps=(2, 4), keep=2):
    checkpoints = Checkpoints(path, keep)
    for step in steps:
        checkpoints.save(state.replace(step=jnp.int32(step)), fixed, META)
    checkpoints.close()


@pytest.mark.parametrize("part", ["meta", "trainable", "opt_state"])
@pytest.mark.parametrize("writes", [True, False])
def test_the_one_before_a_damaged_checkpoint_is_used_and_named(
    tmp_path, state, part, writes, capsys
):
    saved(tmp_path, state, {})
    shutil.rmtree(tmp_path / "checkpoints/4" / part)
    again = Checkpoints(tmp_path, clean=writes)
    again.check(META)
    restored, _ = again.restore(state, {})
    assert int(restored.step) == again.latest == 2
    aside = tmp_path / "checkpoints.damaged/4"
    line = f"the checkpoint {tmp_path}/checkpoints/4 is damaged ({part} is missing); "
    moved = f"it is moved to {aside}, and the run goes on from step 2"
    assert capsys.readouterr().err == line + (moved if writes else "step 2 is used") + "\n"
    assert aside.exists() == writes
    assert (tmp_path / "checkpoints/4").exists() != writes


def test_the_step_of_a_damaged_checkpoint_can_be_saved_again(tmp_path, state):
    saved(tmp_path, state, {})
    for turn in (1, 2):
        (tmp_path / "checkpoints/4/meta/metadata").write_text("{}")
        again = Checkpoints(tmp_path, clean=True)
        assert int(again.restore(state, {})[0].step) == 2
        again.save(state.replace(step=jnp.int32(4)), {}, META)
        again.close()
        assert Checkpoints(tmp_path).latest == 4
        assert len(list((tmp_path / "checkpoints.damaged").iterdir())) == turn


def test_a_folder_without_a_whole_checkpoint_is_one_sentence_and_stays_as_it_is(tmp_path, state):
    saved(tmp_path, state, {})
    for step in (2, 4):
        (tmp_path / f"checkpoints/{step}/meta/metadata").write_text("{}")
    with pytest.raises(
        UserError, match=r"every checkpoint .* damaged \(2: .*; 4: .*delete"
    ) as error:
        Checkpoints(tmp_path, clean=True).restore(state, {})
    assert "\n" not in str(error.value)
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"2", "4"}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "too little memory"),
        (ValueError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), "too little memory"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (ValueError("PERMISSION_DENIED: Error opening file"), "PERMISSION_DENIED"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
    ],
)
def test_what_says_nothing_of_its_bytes_passes_no_checkpoint_over(
    tmp_path, state, monkeypatch, error, said
):
    saved(tmp_path, state, {})
    again = Checkpoints(tmp_path, clean=True)

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(again._manager, "restore", fail)
    with pytest.raises(UserError, match=f"checkpoints/4 cannot be read .*{said}"):
        again.restore(state, {})
    assert (tmp_path / "checkpoints/4").exists()


@pytest.mark.parametrize(("before", "after"), [("4", "5"), ("4", "t"), ("4", "4 ")])
def test_a_checkpoint_under_another_name_is_said(tmp_path, state, before, after, capsys):
    saved(tmp_path, state, {})
    (tmp_path / "checkpoints" / before).rename(tmp_path / "checkpoints" / after)
    assert int(Checkpoints(tmp_path).restore(state, {})[0].step) == 2
    said = capsys.readouterr().err
    assert f"checkpoints/{after}" in said
    assert "it is of step 4" in said if after == "5" else "is not used" in said


def test_any_bit_of_meta_is_noticed(tmp_path, state, rng):
    saved(tmp_path, state, {}, steps=(4,))
    file = tmp_path / "checkpoints/4/meta/metadata"
    whole = file.read_bytes()
    for bit in rng.choice(8 * len(whole), 60, replace=False).tolist():
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        with pytest.raises(UserError, match=r"the only checkpoint .* is damaged"):
            print(Checkpoints(tmp_path).meta)


def damage(kind, content, rng):
    """A file's content with one byte flipped, or a block of it zeroed, random or missing."""
    at = int(rng.integers(len(content)))
    if kind == "flip":
        return content[:at] + bytes([content[at] ^ (1 << int(rng.integers(8)))]) + content[at + 1 :]
    block = {"zeros": bytes(64), "random": rng.bytes(64), "cut": b""}[kind]
    return content[:at] + block[: len(content) - at] + content[at + 64 :]


@pytest.mark.parametrize("kind", ["flip", "zeros", "random", "cut"])
def test_no_damage_to_a_file_gives_other_parameters(tmp_path, state, rng, kind):
    weights = jnp.asarray(rng.normal(size=(40, 30)).astype(np.float32))
    state = init_state({"head": {"kernel": weights}}, optax.adam(1e-3))
    checkpoints = Checkpoints(tmp_path / "whole")
    checkpoints.save(state.replace(step=jnp.int32(4)), {"statistics": {"mean": weights[0]}}, META)
    checkpoints.close()
    files = [file for file in (tmp_path / "whole").rglob("*") if file.is_file()]
    largest = sorted(files, key=lambda file: -file.stat().st_size)[:4]
    refused = 0
    for turn, file in enumerate([*rng.choice(files, 6), *largest]):
        copy = tmp_path / f"{turn}"
        shutil.copytree(tmp_path / "whole", copy)
        target = copy / file.relative_to(tmp_path / "whole")
        target.write_bytes(damage(kind, file.read_bytes(), rng))
        try:
            again = Checkpoints(copy)
            if again.latest is None:
                continue
            again.check(META)
            found, fixed = again.restore_model(
                jax.tree.map(jnp.zeros_like, state.trainable), {"statistics": {"mean": weights[1]}}
            )
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        np.testing.assert_array_equal(found["head"]["kernel"], weights)
        np.testing.assert_array_equal(fixed["statistics"]["mean"], weights[0])
    assert refused > 1


@pytest.mark.parametrize("tree", ["trainable", "opt_state", "fixed"])
def test_arrays_other_than_their_hashes_are_named(tmp_path, state, tree, capsys):
    fixed = {"statistics": {"mean": jnp.ones(4)}}
    saved(tmp_path, state, fixed)
    file = tmp_path / "checkpoints/4/meta/metadata"
    content = sealed.unseal(json.loads(file.read_text()))
    found = content["checkpoint"]["sha256"][tree]
    leaf = next(iter(found))
    found[leaf] = "0" * 64
    file.write_text(json.dumps(sealed.seal(content)))
    assert int(Checkpoints(tmp_path).restore(state, fixed)[0].step) == 2
    assert f"({tree}{leaf} has other values than were saved)" in capsys.readouterr().err


@pytest.mark.parametrize("hashed", [True, False])
def test_a_checkpoint_of_a_version_before_opens(tmp_path, state, hashed, capsys):
    saved(tmp_path, state, {}, steps=(4,))
    file = tmp_path / "checkpoints/4/meta/metadata"
    found = sealed.unseal(json.loads(file.read_text()))["checkpoint"]
    file.write_text(json.dumps({**META, **({"sha256": found["sha256"]} if hashed else {})}))
    checkpoints = Checkpoints(tmp_path)
    assert int(checkpoints.restore(state, {})[0].step) == 4
    assert checkpoints.meta == META
    assert ("kept no hashes" in capsys.readouterr().err) != hashed


def test_a_checkpoint_is_on_the_disk_before_it_gets_its_name(tmp_path, state, monkeypatch):
    """The arrays' files are synchronised by who writes them; the rest was not."""
    synced, folder = [], tmp_path / "checkpoints"

    def sync(path):
        synced.append(path)
        if path == folder:
            assert (folder / "4").is_dir()
        else:
            assert not (folder / "4").exists()

    monkeypatch.setattr(folders.atomic, "sync", sync)
    saved(tmp_path, state, {}, steps=(4,))
    names = {str(path.relative_to(folder)) for path in synced}
    final = {name.replace(".orbax-checkpoint-tmp", "") for name in names}
    written = {str(path.relative_to(folder)) for path in (folder / "4").rglob("*")}
    assert written - {"4/commit_success.txt"} <= final
    assert {".", "4"} <= final


def test_file_in_the_place_of_the_directory_is_one_sentence(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(UserError, match="no directory"):
        Checkpoints(tmp_path)
