"""Runs with damaged checkpoints: an older one is used and named, and the end is the same."""

import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from ape_jax import config as config_lib
from ape_jax.errors import UserError
from ape_jax.runs.checkpoints.checkpoint import Checkpoints
from ape_jax.runs.restore import restore
from ape_jax.training import loop, metrics


def flip(folder):
    """Flips bits in the files of arrays below a folder, some of whose bytes are not in use."""
    for file in folder.rglob("d/*"):
        content = bytearray(file.read_bytes())
        for at in range(len(content) // 2, len(content), 512):
            content[at] ^= 4
        file.write_bytes(content)


def same_bits(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


@pytest.fixture(scope="module")
def config(new_tiny_config):
    return config_lib.resolve(
        {**config_lib.flatten(new_tiny_config()), "eval.keep": "best", "train.eval_every": 4}
    )


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """A run of two checkpoints, the best of which is the last, which nobody changes."""
    path = tmp_path_factory.mktemp("damaged") / "whole"
    loop.train_and_evaluate(config, path)
    return path


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def test_a_run_that_goes_on_from_an_older_checkpoint_ends_with_the_same_bits(
    config, whole, copy, capsys
):
    flip(copy / "checkpoints/8/opt_state")
    flip(copy / "checkpoints/8/trainable")
    (copy / "summary.json").unlink()
    loop.train_and_evaluate(config, copy)
    said = capsys.readouterr().err
    assert "checkpoints/8 is damaged" in said and "goes on from step 4" in said
    assert f"resuming {copy} at step 4" in said
    last = {"eval.keep": "last"}
    ends = [restore(path, last) for path in (whole, copy)]
    assert [run.step for run in ends] == [8, 8]
    assert same_bits(*(run.trainable for run in ends))
    assert (whole / "metrics.jsonl").read_text() == (copy / "metrics.jsonl").read_text()
    assert (copy / "checkpoints.damaged/8").is_dir()


def test_reading_uses_the_one_before_and_changes_nothing(whole, copy, capsys):
    flip(copy / "checkpoints/8/trainable")
    before = {p: p.stat().st_mtime_ns for p in copy.rglob("*")}
    run = restore(copy, {"eval.keep": "last"})
    assert run.step == 4
    assert f"{copy}/checkpoints/8 is damaged (" in (said := capsys.readouterr().err)
    assert "step 4 is used" in said
    assert {p: p.stat().st_mtime_ns for p in copy.rglob("*")} == before


def test_in_place_of_a_damaged_best_state_the_newest_is_used(whole, copy, capsys):
    flip(copy / "best")
    run = restore(copy)
    assert same_bits(run.trainable, restore(whole, {"eval.keep": "last"}).trainable)
    assert "newest checkpoint is used instead of the best" in capsys.readouterr().err
    shutil.rmtree(copy / "best")
    restore(copy)
    assert "no folder 'best'" in capsys.readouterr().err


def test_a_best_state_that_says_nothing_true_of_itself_stops_the_run(config, copy):
    (metadata,) = copy.glob("best/*/meta/metadata")
    metadata.write_text(metadata.read_text().replace("e", "f", 1))
    (copy / "summary.json").unlink()
    with pytest.raises(UserError, match=r"best is damaged .*delete .*goes on, and keeps the best"):
        loop.train_and_evaluate(config, copy)
    shutil.rmtree(copy / "best")
    loop.train_and_evaluate(config, copy)


def test_a_fork_names_the_older_checkpoint_that_it_starts_from(config, copy, tmp_path, capsys):
    flip(copy / "checkpoints/8/trainable")
    fork = config.replace({"start.run": str(copy), "train.steps": 2})
    loop.train_and_evaluate(config_lib.resolve(config_lib.flatten(fork)), tmp_path / "fork")
    said = capsys.readouterr().err
    assert "step 4 is used" in said and "was trained for 4 steps" in said
    flip(copy / "checkpoints/4/trainable")
    with pytest.raises(UserError, match=r"config\.start\.run: every checkpoint .* is damaged"):
        loop.train_and_evaluate(config_lib.resolve(config_lib.flatten(fork)), tmp_path / "other")


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ('"text.layer": -1', '"text.layer": 1', "text.layer"),
        ('"seed": 0', '"seed": 8', "seed"),
        ('"image.pooling": "own"', '"image.pooling": "mean"', "image.pooling"),
    ],
)
def test_a_config_other_than_that_of_its_checkpoint_is_named(copy, before, after, key):
    text = (copy / "config.json").read_text()
    assert before in text
    (copy / "config.json").write_text(text.replace(before, after))
    with pytest.raises(UserError, match=rf"config\.json says {key}=.* damaged or was edited"):
        restore(copy)


def test_settings_of_the_reader_are_no_damage(copy):
    assert restore(copy, {"image.dtype": "bfloat16"}).config.image.dtype == "bfloat16"


def test_lines_of_metrics_are_on_the_disk_before_the_checkpoint(config, tmp_path, monkeypatch):
    done, save, fsync = [], Checkpoints.save, os.fsync

    def saved(self, state, *args):
        done.append(int(state.step))
        return save(self, state, *args)

    def synced(handle):
        path = os.readlink(f"/proc/self/fd/{handle}")
        if path.endswith("metrics.jsonl"):
            done.append(json.loads(Path(path).read_text().splitlines()[-1])["step"])
        fsync(handle)

    monkeypatch.setattr(Checkpoints, "save", saved)
    monkeypatch.setattr(metrics.os, "fsync", synced)
    config = config.replace({"eval.keep": "last", "train.eval_every": 0})
    loop.train_and_evaluate(config, tmp_path / "run")
    assert done == [4, 4, 8, 8]
