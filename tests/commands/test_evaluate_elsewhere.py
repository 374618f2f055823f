"""A run that was trained with relative paths, used from another folder."""

import json

import numpy as np

from ape_jax import config as config_lib
from ape_jax.commands import evaluate
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
