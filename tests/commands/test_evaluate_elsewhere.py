"""A run that was trained with relative paths, used from another folder."""

import json
import shutil

import numpy as np
import pytest

from ape_jax import config as config_lib
from ape_jax import pages
from ape_jax.commands import evaluate
from ape_jax.errors import UserError
from ape_jax.runs.encoder import load
from ape_jax.training import loop


def write(path, seed):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(40, 8))
    image, text = (shared @ rng.normal(size=(8, d)) for d in (16, 12))
    np.savez(path, image=image.astype("f4"), text=text.astype("f4"))


def test_it_evaluates_on_its_own_files_and_says_where_they_changed(tmp_path, monkeypatch, capsys):
    here, there = tmp_path / "here", tmp_path / "there"
    for seed, folder in enumerate((here, there)):
        folder.mkdir()
        write(folder / "t.npz", seed)
    monkeypatch.chdir(here)
    flat = {
        "image.tower": "features:16",
        "text.tower": "features:12",
        "data.pairs": "features:t.npz",
        "data.eval": {"test": "features:t.npz"},
        "train.batch": 8,
        "train.steps": 2,
    }
    config = config_lib.resolve(config_lib.unflatten(flat))
    summary = loop.train_and_evaluate(config, "run")
    recorded = json.loads((here / "run/config.json").read_text())
    assert recorded["data.pairs"] == recorded["data.eval"]["test"] == f"features:{here}/t.npz"
    monkeypatch.chdir(there)
    metrics, _ = evaluate.retrieval(str(here / "run"), "")
    assert metrics["eval/test/i2t_r1"] == summary["eval/test/i2t_r1"]
    assert "has changed" not in capsys.readouterr().err
    monkeypatch.chdir(here)  # The same command goes on, with its relative path.
    assert loop.train_and_evaluate(config, "run")["digests"] == summary["digests"]
    write(here / "t.npz", 7)
    evaluate.retrieval(str(here / "run"), "")
    assert "t.npz has changed since the run was evaluated" in capsys.readouterr().err


def test_a_report_says_which_pairs_have_changed(tmp_path, monkeypatch, capsys):
    for seed, name in enumerate(("t.npz", "e.npz")):
        write(tmp_path / name, seed)
    flat = {
        "image.tower": "features:16",
        "text.tower": "features:12",
        "data.pairs": f"features:{tmp_path}/t.npz",
        "data.eval": {"test": f"features:{tmp_path}/e.npz"},
        "train.batch": 8,
        "train.steps": 2,
    }
    loop.train_and_evaluate(config_lib.resolve(config_lib.unflatten(flat)), tmp_path / "run")
    pages.write(tmp_path / "run")
    assert "has changed" not in capsys.readouterr().err
    write(tmp_path / "e.npz", 7)
    pages.write(tmp_path / "run")
    assert "data.eval.test: " in (said := capsys.readouterr().err)
    assert "e.npz has changed since the run was evaluated" in said
    flat |= {"data.eval": {}}
    loop.train_and_evaluate(config_lib.resolve(config_lib.unflatten(flat)), tmp_path / "alone")
    write(tmp_path / "t.npz", 8)
    pages.write(tmp_path / "alone")
    assert "t.npz has changed since the run was trained" in capsys.readouterr().err


def test_a_tower_of_the_same_name_in_another_folder_is_not_taken(
    tiny_config, tiny, tmp_path, monkeypatch
):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        shutil.copytree(tiny / "image", folder / "towers" / "vit")
    config = there / "towers" / "vit" / "preprocessor_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "image_std": [0.1, 0.1, 0.1]}))
    monkeypatch.chdir(here)
    tiny_config.image.tower, tiny_config.train.steps = "towers/vit", 2
    tiny_config.data.eval = {}
    loop.train_and_evaluate(config_lib.resolve(tiny_config), "run")
    monkeypatch.chdir(there)
    assert load(here / "run").config.image.tower == f"{here}/towers/vit"
    record = json.loads((here / "run/config.json").read_text())
    (here / "run/config.json").write_text(json.dumps({**record, "image.tower": "towers/vit"}))
    with pytest.raises(UserError, match="another image preparation"):  # As earlier versions wrote.
        load(here / "run")
