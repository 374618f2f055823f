"""Closed forms are run, stored, loaded and resumed like trained heads; training starts there."""

import json
import shutil
import sys
import types

import numpy as np
import pytest
from sklearn.linear_model import Ridge

import ape_jax
from ape_jax import config as config_lib
from ape_jax.align import closed_form
from ape_jax.align.closed_form.asif import unit
from ape_jax.data.specs import open_pairs
from ape_jax.errors import UserError
from ape_jax.evaluators.retrieval import retrieval_metrics
from ape_jax.evaluators.tasks import evaluate_retrieval
from ape_jax.features.dataset import FeatureStore
from ape_jax.runs import build
from ape_jax.training import loop, run, solve
from ape_jax.training.input import opened

METHODS = ("ridge", "ridge_text", "cca", "procrustes", "asif")


def resolved(config, **keys):
    flat = {**config_lib.flatten(config), **{k.replace("__", "."): v for k, v in keys.items()}}
    return config_lib.resolve(config_lib.unflatten(flat))


def prepared(config):
    return run.prepare(config, opened.sources(config), build.load_towers(config), FeatureStore())


@pytest.fixture(scope="module")
def solved(new_tiny_config, tmp_path_factory):
    """`solved("cca")`: the config, work directory and summary of a run that nobody changes."""
    base, runs = new_tiny_config(), {}

    def once(method):
        if method not in runs:
            config, path = resolved(base, method=method), tmp_path_factory.mktemp(method)
            runs[method] = config, path, loop.train_and_evaluate(config, path)
        return runs[method]

    return once


def metrics_of(summary):
    return {k.split("/")[2]: v for k, v in summary.items() if k.startswith("eval/train/")}


def features(config):
    """Standardised images and pooled texts of the training pairs, which are evaluated on."""
    made = prepared(config)
    data, statistics = made.dataset, made.aligned.frozen["statistics"]
    center, spread = (np.asarray(statistics[name]) for name in ("center", "spread"))
    images = (made.tasks[0].dataset.pooled[:][:, 0] - center) / spread
    return images, made.tasks[0].dataset.tokens.mean(), data.captions


@pytest.mark.parametrize("method", METHODS)
def test_a_run_is_evaluated_loaded_and_not_repeated(solved, tiny, method, monkeypatch):
    config, path, summary = solved(method)
    assert summary["step"] == 0 and summary["closed_form"]["method"] == method
    assert metrics_of(summary)["t2i_r10"] > 0.5
    line = json.loads((path / "metrics.jsonl").read_text())
    assert line["step"] == 0 and line["eval/train/t2i_r1"] == summary["eval/train/t2i_r1"]
    model = ape_jax.load(path)
    loaded = evaluate_retrieval(model, open_pairs(str(tiny / "pairs.jsonl")))
    assert loaded == pytest.approx(metrics_of(summary))
    assert model.encode_text(["a red bar"]).shape[1] == summary["closed_form"]["width"]
    monkeypatch.setattr(loop.run_lib, "prepare", None)
    assert loop.train_and_evaluate(config, path) == summary


@pytest.mark.parametrize("method", METHODS)
def test_a_run_killed_after_its_checkpoint_takes_the_heads_from_there(
    solved, tmp_path, method, monkeypatch
):
    config, path, summary = solved(method)
    shutil.copytree(path, tmp_path / "cut")
    (tmp_path / "cut/summary.json").unlink()
    monkeypatch.setattr(solve, "solve", None)
    again = loop.train_and_evaluate(config, tmp_path / "cut")
    assert {k: v for k, v in again.items() if k != "seconds_last_start"} == {
        k: v for k, v in summary.items() if k != "seconds_last_start"
    }


def test_cca_is_the_closed_forms_own(tiny_config, tmp_path):
    config = resolved(
        tiny_config,
        method="cca",
        embed=8,
        closed__l2=0.1,
        closed__power=1.0,
        cache__dtype="float32",
    )
    images, texts, captions = features(config)
    pairs = closed_form.Paired(
        text=texts,
        image=images[:, None],
        text_index=captions.text_index,
        image_index=captions.image_index,
    )
    fit = closed_form.cca(pairs, 0.1, dim=8, power=1.0)
    zimg, ztxt = unit(fit.image(images)), unit(fit.text(texts))
    expected = retrieval_metrics(zimg, ztxt[captions.text_index], captions.image_index)
    assert metrics_of(loop.train_and_evaluate(config, tmp_path)) == pytest.approx(expected)
    model = ape_jax.load(tmp_path)
    np.testing.assert_allclose(model.encode_text(list(captions.texts)), ztxt, atol=1e-4)


def test_ridge_towards_texts_is_scikit_learns(tiny_config, tmp_path):
    config = resolved(tiny_config, method="ridge_text", closed__l2=0.5, cache__dtype="float32")
    images, texts, captions = features(config)
    targets = texts[captions.text_index]
    fit = Ridge(0.5).fit(images[captions.image_index], targets)
    mean = targets.mean(axis=0)
    zimg, ztxt = unit(fit.predict(images) - mean), unit(texts - mean)
    expected = retrieval_metrics(zimg, ztxt[captions.text_index], captions.image_index)
    assert metrics_of(loop.train_and_evaluate(config, tmp_path)) == pytest.approx(expected)
    model = ape_jax.load(tmp_path)
    np.testing.assert_allclose(model.encode_text(list(captions.texts)), ztxt, atol=1e-4)


def test_asif_is_the_closed_forms_own(tiny_config, tmp_path):
    config = resolved(
        tiny_config, method="asif", closed__neighbours=5, closed__power=4.0, cache__dtype="float32"
    )
    images, texts, captions = features(config)
    pairs = closed_form.Paired(
        text=texts,
        image=images[:, None],
        text_index=captions.text_index,
        image_index=captions.image_index,
    )
    fit = closed_form.asif(pairs, 5, 4.0)
    loop.train_and_evaluate(config, tmp_path)
    ours = ape_jax.load(tmp_path).encode_text(list(captions.texts))
    np.testing.assert_allclose(ours, fit.texts(texts).dense(), atol=1e-4)


def test_asif_beyond_its_anchors_is_one_sentence(tiny_config, tmp_path, monkeypatch):
    module = sys.modules["ape_jax.align.closed_form.asif"]  # The package shows its function.
    monkeypatch.setattr(module, "MOST_ANCHORS", 10)
    with pytest.raises(UserError, match=r"config.method: 'asif' .* up to 10"):
        loop.train_and_evaluate(resolved(tiny_config, method="asif"), tmp_path)


def test_asif_says_how_much_memory_its_anchors_need(tiny_config, tmp_path, monkeypatch):
    module = sys.modules["ape_jax.align.closed_form.asif"]
    monkeypatch.setattr(module, "memory", types.SimpleNamespace(free_bytes=lambda: 2000))
    with pytest.raises(UserError, match=r"keeps all \d+ in memory, 0.000 GB; 0.000 GB are free"):
        loop.train_and_evaluate(resolved(tiny_config, method="asif"), tmp_path)


def test_a_width_beyond_the_narrower_side_is_one_sentence(tiny_config, tmp_path):
    with pytest.raises(UserError, match=r"config.embed: 'cca' maps both sides to at most 32"):
        loop.train_and_evaluate(resolved(tiny_config, method="cca", embed=33), tmp_path)


START = {"image__head__name": "linear", "text__head__name": "linear"}
PLAIN = {"text__head__depth": 4, "text__head__width": 0}  # The defaults: linear takes neither.


@pytest.mark.parametrize("method", ["ridge", "ridge_text", "cca", "procrustes"])
def test_training_starts_at_the_closed_forms_own_figures(tiny_config, tmp_path, method):
    image = "identity" if method == "ridge" else "linear"
    keys = {"text__head__name": "linear", **PLAIN, "image__head__name": image}
    width = 0 if method.startswith("ridge") else 32  # All there is.
    alone = resolved(tiny_config, **PLAIN, method=method, embed=width)
    alone = loop.train_and_evaluate(alone, tmp_path / "a")
    config = resolved(tiny_config, **keys, start__method=method, optim__lr=0.0)
    start = loop.train_and_evaluate(config, tmp_path / "b")
    assert start["step"] == 8 and start["closed_form"] == alone["closed_form"]
    assert metrics_of(start) == metrics_of(alone)


def test_training_goes_on_from_there_and_resumes(tiny_config, tmp_path, monkeypatch):
    keys = {**START, **PLAIN, "start__method": "cca", "optim__lr": 1e-3, "train__eval_every": 4}
    whole = loop.train_and_evaluate(resolved(tiny_config, **keys), tmp_path / "whole")
    assert whole["closed_form"]["method"] == "cca"
    ape_jax.load(tmp_path / "whole")
    # A start that was killed after step 4.
    loop.train_and_evaluate(resolved(tiny_config, **keys), tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/checkpoints/8")
    (tmp_path / "cut/summary.json").unlink()
    monkeypatch.setattr(solve, "solve", None)
    again = loop.train_and_evaluate(resolved(tiny_config, **keys), tmp_path / "cut")
    assert metrics_of(again) == metrics_of(whole)


def test_layers_and_poolings_of_a_run_are_the_blocks_of_the_covariance(new_tiny_config, tmp_path):
    keys = {"method": "cca", "image__layer": (1, -1), "image__pooling": "cls+mean"}
    keys |= {"closed__l2": 0.1, "closed__power": 1.0, "embed": 16, "closed__block_diagonal": True}
    config = resolved(new_tiny_config(), **keys)
    loop.train_and_evaluate(config, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "summary.json").read_text())["closed_form"]
    assert record["parts"] == [32] * 4
    images, texts, captions = features(config)
    index = {"text_index": captions.text_index, "image_index": captions.image_index}
    paired = closed_form.Paired(text=texts, image=images[:, None], **index)
    blocks, whole = (closed_form.cca(paired, 0.1, parts=parts) for parts in ((32,) * 4, ()))
    assert record["correlations"] == pytest.approx(blocks.correlations[:3], abs=1e-3)
    assert abs(whole.correlations[:3] - blocks.correlations[:3]).min() > 0.01
