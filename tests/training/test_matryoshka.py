"""`loss.dims` from the config to a step, and the prefixes that a run is used with afterwards."""

import json

import jax
import numpy as np
import pytest

import ape_jax
from ape_jax import config as config_lib
from ape_jax import evaluate, export, index
from ape_jax.align.latent import Latent
from ape_jax.align.losses import objective
from ape_jax.errors import UserError
from ape_jax.features.dataset import FeatureStore
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.runs import build
from ape_jax.terminal import command
from ape_jax.towers.files import reading
from ape_jax.training import loop, run
from ape_jax.training.input import opened
from ape_jax.training.input.host_feed import HostFeed
from ape_jax.training.step import contrastive_loss

DIMS = (4, 12)


@pytest.fixture(autouse=True)
def say_again():
    """What is said once is said once a test."""
    reading._said.clear()


def prefix(z, dim):
    short = z[:, :dim].astype(np.float64)
    return short / np.linalg.norm(short, axis=1, keepdims=True)


def test_micro_batches_and_mixup_have_the_mean_over_widths(tiny_config):
    tiny_config.loss.dims, tiny_config.cache.dtype = DIMS, "float32"
    config = config_lib.resolve(tiny_config)
    made = run.prepare(config, opened.sources(config), build.load_towers(config), FeatureStore())
    model, mesh = made.aligned.model, made.aligned.mesh
    towers = model.image.tower, model.text.tower
    batch = next(HostFeed(made.dataset, *towers, config, mesh).batches(0))
    batch = mesh_lib.place_batch(batch, mesh)
    trees, rng = (made.aligned.trainable, made.aligned.frozen), jax.random.key(1)

    def loss(dims, devices, chunks):
        one = objective.Objective(dims=dims)
        mixed = jax.jit(
            lambda t, f, b, k: contrastive_loss(
                model, one, devices, t, f, b, k, Latent(mixup=1.0), chunks
            )[0]
        )
        return float(mixed(*trees, batch, rng))

    whole = loss(DIMS, mesh, 1)
    assert loss(DIMS, None, 2) == pytest.approx(whole, rel=1e-5)
    assert loss((), mesh, 1) != pytest.approx(whole, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"loss.dims": (32,)}, r"config\.loss\.dims: all 32 numbers .*; leave out 32"),
        ({"eval.dim": 33}, r"config\.eval\.dim: embeddings have 32 numbers; .* found 33"),
        ({"loss.dims": (8, 4)}, r"config\.loss\.dims: expected \(\) or whole numbers .* rising"),
        ({"method": "cca", "loss.dims": (8,)}, r"config\.loss\.dims: \(8,\) has no effect with"),
    ],
)
def test_widths_that_do_not_fit_are_refused_before_anything_is_encoded(
    tiny_config, tmp_path, settings, said
):
    flat = {**config_lib.flatten(config_lib.resolve(tiny_config)), **settings}
    with pytest.raises(UserError, match=said):
        loop.train_and_evaluate(config_lib.resolve(flat), tmp_path / "run")
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_run_is_loaded_at_a_width_that_it_was_trained_at(tiny_config, tmp_path, capsys):
    tiny_config.loss.dims, tiny_config.train.steps = (8,), 2
    loop.train_and_evaluate(config_lib.resolve(tiny_config), tmp_path / "run")
    capsys.readouterr()
    whole, short = (ape_jax.load(tmp_path / "run", dim=dim) for dim in (None, 8))
    assert "numbers" not in capsys.readouterr().err
    z, cut = (model.encode_text(["a red bar", "a blue circle"]) for model in (whole, short))
    assert z.shape == (2, 32) and cut.shape == (2, 8)
    np.testing.assert_allclose(cut, prefix(z, 8), atol=1e-6)
    assert ape_jax.load(tmp_path / "run", dim=32).encode_text(["a"]).shape == (1, 32)
    ape_jax.load(tmp_path / "run", dim=9)
    assert "cut to their first 9 of 32 numbers" in capsys.readouterr().err


def test_cca_may_be_cut_anywhere(tiny_config, tmp_path, capsys):
    tiny_config.method, tiny_config.embed = "cca", 16
    tiny_config.text.head.name = "token_mlp"
    loop.train_and_evaluate(config_lib.resolve(tiny_config), tmp_path / "run")
    capsys.readouterr()
    assert ape_jax.load(tmp_path / "run", dim=5).encode_text(["a"]).shape == (1, 5)
    assert "cut to" not in capsys.readouterr().err


@pytest.mark.parametrize(("dim", "said"), [(0, "at least 1"), (2.5, "whole"), (33, "32 numbers")])
def test_a_width_that_is_none_is_refused(tiny_run, dim, said, unchecked):
    with pytest.raises(UserError, match=said):
        ape_jax.load(tiny_run, dim=dim)


def called(capsys, main, *words):
    """Exit code, what is printed and what is said of a command."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        command.run(main, ["ape_jax", *map(str, words)])
    out, err = capsys.readouterr()
    return stop.value.code or 0, out, err


def test_evaluation_at_a_width(tiny_run, tiny, capsys):
    code, out, err = called(capsys, evaluate.main, "--json", f"--workdir={tiny_run}", "--dim=3")
    assert code == 0 and "cut to their first 3 of 32 numbers" in err
    found = ape_jax.load(tiny_run, dim=3).evaluate(str(tiny / "pairs.jsonl"))
    figures = json.loads(out)
    assert figures["eval/shapes/i2t_r1"] == pytest.approx(found["i2t_r1"])
    words = (f"--workdir={tiny_run}", "--dim=3", "--task=conservation")
    code, _, err = called(capsys, evaluate.main, *words)
    assert code == 1 and "--dim: conservation compares the towers" in err


def test_an_index_remembers_its_width(tiny_run, tiny, tmp_path, capsys):
    pairs, out = f"--images={tiny}/pairs.jsonl", tmp_path / "index"
    make = ("--json", f"--workdir={tiny_run}", pairs, f"--out={out}")
    assert called(capsys, index.main, *make, "--dim=6")[0] == 0
    opened = ape_jax.search.open_index(out, None)
    assert opened.vectors.shape == (24, 6)
    ask = ("--json", f"--index={out}", "--query=a red bar", "-k=1")
    code, found, _ = called(capsys, index.main, *ask)
    short = ape_jax.load(tiny_run, dim=6)
    cosine = opened.vectors @ short.encode_text(["a red bar"])[0]
    assert code == 0 and json.loads(found)["a red bar"][0][1] == pytest.approx(cosine.max())
    code, again, _ = called(capsys, index.main, *make)  # Brought up to date at its own width.
    assert code == 0 and json.loads(again)["kept"] == 24
    code, _, err = called(capsys, index.main, *ask, "--dim=7")
    assert code == 1 and "holds embeddings of 6 numbers, and the model gives 7" in err
    assert called(capsys, index.main, *make, "--dim=7")[0] == 1


def test_an_export_is_as_wide_as_asked(tiny_run, tmp_path, capsys):
    out = tmp_path / "small"
    words = (f"--workdir={tiny_run}", f"--out={out}", "--format=jax", "--dim=5")
    code, _, _ = called(capsys, export.main, *words)
    assert code == 0 and json.loads((out / "config.json").read_text())["eval.dim"] == 5
    # What was measured at the full width is not said of the prefix.
    assert not any(k.startswith("eval/") for k in json.loads((out / "summary.json").read_text()))
    texts = ["a red bar", "a blue circle"]
    z = ape_jax.load(tiny_run, dtype="float32").encode_text(texts)
    np.testing.assert_allclose(ape_jax.load(out).encode_text(texts), prefix(z, 5), atol=1e-5)
    np.testing.assert_allclose(ape_jax.load(out, dim=9).encode_text(texts), prefix(z, 9), atol=1e-5)
