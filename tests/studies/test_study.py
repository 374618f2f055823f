"""The grid of methods and seeds, on the tiny world."""

import json
import shutil

import numpy as np
import pytest

from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.align.layers import choice
from ape_jax.errors import UserError
from ape_jax.studies import study
from ape_jax.studies import tables as study_tables
from ape_jax.studies.config import StudyConfig
from ape_jax.studies.methods import METHODS
from ape_jax.terminal.tables import RETRIEVAL
from ape_jax.training import loop, run
from ape_jax.training.input import opened

METHODS_HERE = ("chance", "pixels", "ridge", "linear", "ape")


@pytest.fixture
def config(tiny_config):
    tiny_config.study.methods, tiny_config.study.seeds = METHODS_HERE, 2
    return config_lib.resolve(tiny_config, StudyConfig)


@pytest.fixture(scope="module")
def finished_study(new_tiny_config, tmp_path_factory):
    """The config, folder and summary of a whole study, and how often it has opened its pairs."""
    config, path = new_tiny_config(), tmp_path_factory.mktemp("study")
    config.study.methods, config.study.seeds = METHODS_HERE, 2
    config = config_lib.resolve(config, StudyConfig)
    seen, original = [], opened.sources
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opened, "sources", lambda c: seen.append(c) or original(c))
        return config, path, study.run_study(config, path), len(seen)


def test_study_fills_every_cell_and_does_not_repeat_itself(finished_study, monkeypatch):
    config, path, summary, _ = finished_study
    assert list(summary["methods"]) == list(config.study.methods)
    for method, sets in summary["methods"].items():
        seeds = 2 if METHODS[method].seeded else 1
        assert {len(sets["train"][metric]) for metric in RETRIEVAL} == {seeds}
    assert summary["methods"]["chance"]["train"]["i2t_r1"][0] == pytest.approx(2 / 48, rel=0.2)
    # 24 drawings whose colour is their name: ridge from their own pixels must know them.
    assert summary["methods"]["pixels"]["train"]["i2t_r10"][0] > 0.8
    assert (path / "table.md").read_text().count("±") == 14
    monkeypatch.setattr(study.run_lib, "prepare", None)
    again = study.run_study(config, path)
    assert again == summary
    assert study_tables.tables(again) == study_tables.tables(summary)  # In the same order.


def test_layers_are_chosen_once_for_all_methods(config, tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "LEAST_CONCEPTS", 4)
    open_keys = {"image.layer": "auto", "image.pooling": "auto", "text.layer": "auto"}
    settings = {"study.methods": ("cca", "linear"), "study.seeds": 1, **open_keys}
    config = config.replace(settings)
    summary = study.run_study(config, tmp_path / "study")
    chosen = json.loads((tmp_path / "study/layers.json").read_text())["chosen"]
    assert set(chosen) == set(open_keys)
    for method in ("cca", "linear"):
        cell = json.loads((tmp_path / f"study/{method}/seed0/config.json").read_text())
        assert {key: cell[key] for key in chosen} == chosen
    monkeypatch.setattr("ape_jax.training.layers.settle.choice_record", None)
    assert study.run_study(config, tmp_path / "study") == summary


def test_a_cell_is_the_run_that_main_would_make(finished_study, tmp_path):
    config, path, *_ = finished_study
    cell = study.cell_config("ape", 1, config)
    alone = loop.train_and_evaluate(cell, tmp_path / "alone")
    drop = "seconds_last_start"
    within = json.loads((path / "ape/seed1/summary.json").read_text())
    assert {k: v for k, v in within.items() if k != drop} == {
        k: v for k, v in alone.items() if k != drop
    }


def test_linear_is_a_token_mlp_of_one_layer(config):
    assert study.cell_config("linear", 0, config).text.head.depth == 1
    assert study.cell_config("ape", 3, config).seed == 3


def test_few_pairs_is_trained_as_its_recipe_does_it(config):
    cell = config_lib.flatten(study.cell_config("few_pairs", 0, config))
    recipe = config_lib.flatten(recipes.read("few_pairs"))
    usual = config_lib.flatten(config_lib.default())
    own = {key for key, value in recipe.items() if value != usual.get(key)}
    kept = ("augment.", "cache.views", "image.size", "train.log_every", "train.checkpoint_every")
    own = {key for key in own if not key.startswith(kept)}
    assert {"closed.noise", "optim.lr", "optim.weight_decay", "train.steps"} < own
    assert {key: cell[key] for key in own} == {key: recipe[key] for key in own}


COSTS = {"ape": {"trained": 1000, "share": 0.25, "seconds": 3.2}}


def test_table_gives_percent_with_mean_and_standard_deviation():
    values = {key: [0.1, 0.2] for key in RETRIEVAL} | {"median_rank_t2i": [3.0, 5.0]}
    table = study_tables.tables(
        {"methods": {"ape": {"t": values}}, "images": {"t": 7}, "costs": COSTS}
    )
    assert "t (7 images)" in table and " 1,000 " in table and "25.00" in table
    assert "15.0 ± 7.1" in table and "4.0 ± 1.4" in table


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"study.methods": ()}, "study.methods"),
        ({"data.eval": {}}, "data.eval"),
        ({"text.tune": "full"}, "tune"),
        ({"method": "cca"}, "config.method: a study sets it"),
        ({"study.sizes": (25,)}, "config.study.sizes: there are 24 training pairs, found 25"),
        ({"study.set": (("ape", "optim.lrr", 1.0),)}, "config.optim.lrr: no such key"),
    ],
)
def test_a_config_that_makes_no_study_is_one_sentence(config, tmp_path, changes, words):
    flat = {**config_lib.flatten(config), **changes}
    with pytest.raises(UserError, match=words):
        study.run_study(config_lib.resolve(flat, StudyConfig), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_ridge_is_scikit_learns_on_the_same_features(config, tmp_path):
    from sklearn.linear_model import Ridge

    from ape_jax.align import closed_form
    from ape_jax.evaluators.retrieval import retrieval_metrics
    from ape_jax.features.dataset import FeatureStore
    from ape_jax.runs import build
    from ape_jax.training import run

    config = config.replace({"study.methods": ("ridge",)})
    made = run.prepare(config, opened.sources(config), build.load_towers(config), FeatureStore())
    data = made.dataset
    flat = data.pooled[:][:, 0]
    zimg = (flat - flat.mean(0)) / np.maximum(flat.std(0), 1e-6)
    zimg /= np.linalg.norm(zimg, axis=1, keepdims=True)
    rows, owner = data.captions.text_index, data.captions.image_index
    text = data.tokens.mean()
    l2 = closed_form.ridge_cv(text[rows], zimg[owner], groups=owner).l2
    fit = Ridge(alpha=l2).fit(text[rows].astype(np.float64), zimg[owner])
    ztxt = fit.predict(text)[rows].astype(np.float32)
    ztxt /= np.linalg.norm(ztxt, axis=1, keepdims=True)
    expected = retrieval_metrics(zimg.astype(np.float32), ztxt, owner)
    found = study.run_study(config, tmp_path)["methods"]["ridge"]["train"]
    assert {metric: values[0] for metric, values in found.items()} == pytest.approx(expected)
    assert (tmp_path / "ridge/seed0/config.json").exists()  # A run like any other.


@pytest.mark.slow
def test_sizes_are_one_more_axis(config, tmp_path):
    flat = config_lib.flatten(config)
    flat |= {
        "study.methods": ("chance", "cca", "ape", "cca_start"),
        "study.sizes": (12, 0),
        "study.steps": ((12, 4),),
        "study.set": (("cca_start", "optim.lr", 1e-4), ("cca_start", "text.pooling", "cls")),
    }
    config = config_lib.resolve(flat, StudyConfig)
    summary = study.run_study(config, tmp_path)
    assert list(summary["sizes"]) == ["12", "24"]
    assert summary["methods"] == summary["sizes"]["24"]
    assert len(summary["sizes"]["12"]["cca"]["train"]["i2t_r1"]) == 2  # Two samples.
    assert len(summary["sizes"]["24"]["cca"]["train"]["i2t_r1"]) == 1
    cell = json.loads((tmp_path / "cca_start/n12/seed1/config.json").read_text())
    assert (cell["data.sample"], cell["train.batch"], cell["train.steps"]) == (12, 8, 4)
    assert (cell["optim.lr"], cell["text.pooling"], cell["text.head.width"]) == (1e-4, "cls", 0)
    assert json.loads((tmp_path / "ape/n12/seed1/summary.json").read_text())["pairs"] == 12
    table = (tmp_path / "table.md").read_text()
    assert "R@10, mean of both ways | 12 pairs | 24 pairs" in " ".join(table.split())
    files = study_tables.plots(summary, tmp_path)
    assert [f.name for f in files] == ["train.png"]
    assert files[0].read_bytes().startswith(b"\x89PNG")


def test_a_study_takes_more_methods_and_keeps_the_cells_that_it_has(config, tmp_path, monkeypatch):
    config = config.replace({"study.methods": ("ridge",)})
    before = study.run_study(config, tmp_path)
    config = config.replace({"study.methods": ("chance", "ridge")})
    monkeypatch.setattr(loop.closed, "finish", None)  # Nothing is solved again.
    after = study.run_study(config, tmp_path)
    assert list(after["methods"]) == ["chance", "ridge"]
    assert after["methods"]["ridge"] == before["methods"]["ridge"]


def test_a_killed_study_goes_on_cell_by_cell(config, tmp_path, monkeypatch):
    config = config.replace({"study.methods": ("ridge", "ape"), "study.seeds": 1})
    whole = study.run_study(config, tmp_path / "whole")
    original = loop.train_and_evaluate

    def dies(cell, directory, **shared):
        if "ape" in str(directory):
            raise KeyboardInterrupt
        return original(cell, directory, **shared)

    monkeypatch.setattr(loop, "train_and_evaluate", dies)
    with pytest.raises(KeyboardInterrupt):
        study.run_study(config, tmp_path / "cut")
    monkeypatch.setattr(loop, "train_and_evaluate", original)
    assert study.run_study(config, tmp_path / "cut")["methods"] == whole["methods"]


@pytest.mark.parametrize(
    ("another", "cells"),
    [
        (True, 0),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((False, 0), (False, 1), (True, 1))
        ),
    ],
)
def test_a_study_whose_directory_is_removed_makes_no_other(
    config, tmp_path, monkeypatch, cells, another
):
    config = config.replace({"study.methods": ("ridge", "cca"), "study.seeds": 1})
    directory, done = tmp_path / "study", []
    original, prepare = loop.train_and_evaluate, run.prepare

    def take_away():
        shutil.rmtree(directory)
        if another:  # A start of the same study, elsewhere.
            directory.mkdir()
            (directory / "study.json").write_text("{}")
            (directory / ".lock").write_text("7 another")

    def trained(cell, place, **shared):
        done.append(original(cell, place, **shared))
        take_away()
        return done[-1]

    def prepared(*arguments, **settings):
        if not cells:
            take_away()
        return prepare(*arguments, **settings)

    monkeypatch.setattr(study.loop, "train_and_evaluate", trained)
    monkeypatch.setattr(study.run_lib, "prepare", prepared)
    with pytest.raises(UserError, match="was removed or replaced while this command was working"):
        study.run_study(config, directory)
    assert len(done) == cells
    left = {file.name: file.read_text() for file in directory.glob("*")}
    assert left == ({"study.json": "{}", ".lock": "7 another"} if another else {})
    monkeypatch.undo()
    shutil.rmtree(directory, ignore_errors=True)
    assert study.run_study(config, directory)["methods"]


def test_pairs_are_read_once_for_all_cells(finished_study):
    *_, times = finished_study
    assert times == 1


def test_plots_without_sizes_are_bars(tmp_path):
    values = {key: [0.1, 0.2] for key in RETRIEVAL}
    summary = {"methods": {"ape": {"t": values}}, "images": {"t": 7}}
    assert study_tables.plots(summary, tmp_path)[0].read_bytes().startswith(b"\x89PNG")


def test_bars_stand_best_first_and_baselines_are_grey():
    from matplotlib.figure import Figure

    def row(value):
        return {"t": {key: [value] for key in RETRIEVAL}}

    axes = Figure().subplots()
    rows = {"chance": row(0.1), "few_pairs": row(0.5), "ape": row(0.3)}
    study_tables._draw_bars(axes, "t", rows)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert [name.split(":")[0] for name in names] == ["few_pairs", "APE", "chance"]
    colours = [bar.get_facecolor() for bar in axes.patches]
    assert colours[0] == colours[1] != colours[2]


def test_plots_without_matplotlib_say_what_to_install(monkeypatch):
    monkeypatch.setattr(study_tables.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"ape_jax\[plots\]"):
        study_tables.require_matplotlib()


def test_figures_by_language_come_behind_their_sets_as_they_did_the_first_time():
    first = {"cca": {"same": 1, "same:ar": 2, "same:ja": 3, "other": 4, "other:ar": 5}, "ape": {}}
    read = {"ape": {}, "cca": dict(sorted(first["cca"].items()))}
    found = study._in_order({"methods": read}, [["cca", "ape"], ["same", "other"]])["methods"]
    assert list(found) == list(first) and list(found["cca"]) == list(first["cca"])
