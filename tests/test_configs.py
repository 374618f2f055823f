"""Every config file resolves, and the demo's trains on its real pairs."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from ape_jax import config as config_lib
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.studies.config import StudyConfig
from ape_jax.training import loop

ROOT = pathlib.Path(__file__).parent.parent
# Those that are about pairs of their own; all others are recipes for the user's.
STUDIES = {"demo", "icons", "study"}
RECIPES = sorted(p for p in (ROOT / "configs").glob("*.py") if p.stem not in STUDIES)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A cache that the recipes share."""
    return tmp_path_factory.mktemp("features")


# What is kept in configs/results, and the argument of configs/study.py that made it.
RESULTS = {
    "ape": "ape",
    "emoji": "",
    "fewer": "tuned,fewer",
    "icons": "icons",
    "tuned": "tuned",
}


def read(path, arg, kind=config_lib.Config):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return config_lib.resolve(module.get_config(arg), kind)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.stem)
def test_config_file_resolves(path):
    arg = "" if path.stem in STUDIES else "image=demo:vit_s14,text=demo:minilm,pairs=x.jsonl"
    config = read(path, arg)
    assert config.image.tower and config.text.tower and config.data.pairs


# One that trains heads and one that trains towers: the others differ by head, loss or optimizer,
# which tests of their own have. APE's is also what the demo's test trains, and for longer.
QUICK = {"few_pairs", "lilt"}


def recipe(path):
    return pytest.param(path, id=path.stem, marks=[] if path.stem in QUICK else pytest.mark.slow)


@pytest.mark.parametrize("path", [recipe(p) for p in RECIPES if p.stem != "asif"])
def test_first_steps_of_a_recipe_bring_the_loss_down(path, tmp_path, features, monkeypatch):
    """Twenty steps on real towers and pairs of the demo.

    On one device: eight of them, each with both towers and their optimizer, are ten gigabytes.
    """
    mesh = mesh_lib.make_mesh(1)
    monkeypatch.setattr(mesh_lib, "make_mesh", lambda devices=None, fsdp=1: mesh)
    config = read(path, "runlocal")
    config = config.replace({"cache.dir": str(features)})
    loop.train_and_evaluate(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert len(losses) == 20
    assert sum(losses[-5:]) < 0.97 * sum(losses[:5])


def test_ape_takes_given_vectors():
    arg = "image=features:512,text=features:384,pairs=features:x.npz,eval=features:y.npz"
    assert read(ROOT / "configs/ape.py", arg).cache.views == 1


def test_demo_on_real_towers_and_pairs_is_far_above_chance(tmp_path):
    """Shrunk to seconds: clean small images, one seed; on one device, as its users run it."""
    overrides = {
        "cache.dir": str(tmp_path / "features"),
        "cache.views": "1",
        "augment.crop": "()",
        "augment.flip": "False",
        "augment.randaugment": "()",
        "train.steps": "40",
        "study.methods": "('chance', 'ape')",
        "study.seeds": "1",
        "image.layer": "6",
        "image.size": "42",
        "text.head.width": "384",
    }
    argv = [f"--config={ROOT}/configs/demo.py:runlocal", f"--workdir={tmp_path}/run"]
    argv += [f"--config.{key}={value}" for key, value in overrides.items()]
    done = subprocess.run(
        [sys.executable, "-m", "ape_jax.study", *argv],
        capture_output=True,
        text=True,
        env={**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)},
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert "same-style (186 images)" in done.stdout
    methods = json.loads((tmp_path / "run/summary.json").read_text())["methods"]
    for name, factor in (("same-style", 3), ("style-shift", 2)):
        ape, chance = (methods[m][name]["t2i_r10"][0] for m in ("ape", "chance"))
        assert ape > factor * chance


@pytest.mark.parametrize("bench", sorted(p.name for p in (ROOT / "configs/results").iterdir()))
def test_a_kept_result_is_of_the_config_as_it_is(bench):
    kept = json.loads((ROOT / "configs/results" / bench / "summary.json").read_text())
    config = read(ROOT / "configs/study.py", RESULTS[bench], StudyConfig)
    assert kept["config"] == config_lib.digest(config)
