"""Every recipe resolves and is found from anywhere, and the demo's trains on its real pairs."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.errors import UserError
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.studies.config import StudyConfig
from ape_jax.training import loop

ROOT = pathlib.Path(__file__).parents[2]
# Those that are about pairs of their own; all others are recipes for the user's.
STUDIES = {"demo", "icons", "study", "yardstick"}
RECIPES = [name for name in recipes.names() if name not in STUDIES]


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A cache that the recipes share."""
    return tmp_path_factory.mktemp("features")


# What is kept in docs/results, and the argument of the recipe `study` that made it.
RESULTS = {
    "ape": "ape",
    "emoji": "",
    "fewer": "tuned,fewer",
    "icons": "icons",
    "tuned": "tuned",
}


def read(name, arg, kind=config_lib.Config):
    return config_lib.resolve(recipes.read(f"{name}:{arg}"), kind)


@pytest.mark.parametrize("name", recipes.names())
def test_recipe_resolves(name):
    arg = "" if name in STUDIES else "image=demo:vit_s14,text=demo:minilm,pairs=x.jsonl"
    config = read(name, arg)
    assert config.image.tower and config.text.tower and config.data.pairs


@pytest.mark.parametrize(
    ("arg", "domains", "reference"),
    [
        ("fresh", 6, "few_pairs"),
        ("fresh,language=ja+ar+zh", 9, "few_pairs"),
        ("icons,fresh", 2, "few_pairs"),
        ("icons,ape", 0, ""),
        ("icons,ape,fresh", 2, ""),
        ("fresh,runlocal", 0, ""),
    ],
)
def test_a_study_of_fresh_splits_resolves(arg, domains, reference):
    config = read("study", arg, StudyConfig)
    assert (len(config.study.domains), config.study.reference) == (domains, reference)
    for _, pairs, sets in config.study.domains:  # Trained and tested on one and the same partition.
        (number,) = set(re.findall(r"@(\d)", pairs))
        assert {re.findall(r"@(\d)", spec)[0] for _, spec in sets} == {number}


def test_a_recipe_is_found_from_any_directory(tmp_path):
    """By name, and as a file: in the repository, and copied to where the user is."""
    (tmp_path / "mine.py").write_bytes((ROOT / "configs/ape.py").read_bytes())
    script = (
        "from ape_jax import recipes\n"
        f"for name in ('ape', './mine.py', {str(ROOT / 'configs/ape.py')!r}):\n"
        "    print(recipes.read(name + ':steps=7').train.steps)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split() == ["7", "7", "7"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("few-pairs", ["'few-pairs'", "did you mean 'few_pairs'?", "ape, asif, clip"]),
        ("zzz:image=x", ["'zzz'", "ape, asif, clip", ".py"]),
        ("configs/none.py", ["no such config file as configs/none.py"]),
        ("elsewhere/ape.py:steps=2", ["elsewhere/ape.py", "the recipe of that name is ape"]),
        ("ape:epochs=2", ["no argument 'epochs'"]),
        ("", ["ape, asif, clip"]),
        ("__init__", ["'__init__'", "ape, asif, clip"]),
    ],
)
def test_what_is_no_recipe_is_refused_with_what_there_is(spec, words):
    with pytest.raises(UserError) as refused:
        recipes.read(spec)
    assert all(word in str(refused.value) for word in words), refused.value


# One that trains heads and one that trains towers: the others differ by head, loss or optimizer,
# which tests of their own have. APE's is also what the demo's test trains, and for longer.
QUICK = {"few_pairs", "lilt"}


def recipe(name):
    return pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)


@pytest.mark.parametrize("name", [recipe(name) for name in RECIPES if name != "asif"])
@pytest.mark.usefixtures("fully_compiled")
def test_first_steps_of_a_recipe_bring_the_loss_down(name, tmp_path, features, monkeypatch):
    """Twenty steps on real towers and pairs of the demo.

    On one device: eight of them, each with both towers and their optimizer, are ten gigabytes.
    """
    mesh = mesh_lib.make_mesh(1)
    monkeypatch.setattr(mesh_lib, "make_mesh", lambda devices=None, fsdp=1: mesh)
    config = read(name, "runlocal")
    config = config.replace({"cache.dir": str(features)})
    loop.train_and_evaluate(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert len(losses) == 20
    assert sum(losses[-5:]) < 0.97 * sum(losses[:5])


def test_ape_takes_given_vectors():
    arg = "image=features:512,text=features:384,pairs=features:x.npz,eval=features:y.npz"
    assert read("ape", arg).cache.views == 1


@pytest.mark.usefixtures("fully_compiled")
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
    argv = ["--config=demo:runlocal", f"--workdir={tmp_path}/run"]
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


@pytest.mark.parametrize(
    "bench", sorted(p.parent.name for p in (ROOT / "docs/results").glob("*/summary.json"))
)
def test_a_kept_result_is_of_the_config_as_it_is(bench):
    kept = json.loads((ROOT / "docs/results" / bench / "summary.json").read_text())
    config = read("study", RESULTS[bench], StudyConfig)
    assert kept["config"] == config_lib.digest(config)
