"""Training in one call, from pairs that the program holds."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import ape_jax
from ape_jax import UserError
from ape_jax.api.fit import underscored
from ape_jax.config import Config, schema
from ape_jax.data.specs import open_pairs
from ape_jax.runs.directory import workdir
from ape_jax.training import loop
from ape_jax.training.input import opened

QUICK = {"batch": 16, "steps": 4, "views": 1, "text_head_width": 32, "eval_batch": 8}


@pytest.fixture(scope="module")
def towers(tiny, tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("features"))
    return {"image": str(tiny / "image"), "text": str(tiny / "text"), "cache_dir": cache}


@pytest.fixture(scope="module")
def table(tiny):
    pairs = open_pairs(tiny / "pairs.jsonl")
    images = [Image.open(pair.image.content).convert("RGB") for pair in pairs]
    return pd.DataFrame({"picture": images, "text": [list(pair.captions) for pair in pairs]})


@pytest.fixture(scope="module")
def model(towers, table, tiny):
    return ape_jax.fit(pairs=table, eval=tiny / "pairs.jsonl", **towers, **QUICK)


def test_a_data_frame_becomes_a_model_that_classifies_and_retrieves(model, table):
    images = list(table["picture"][:3])
    assert model.classify(images, ["a red square", "a blue bar"]).shape == (3, 2)
    (hits,) = model.retrieve(["a red square"], images, k=2)
    assert len(hits) == 2
    assert "eval/eval/i2t_r1" in model.summary and model.summary["pairs"] == 24


def test_save_keeps_the_temporary_run_for_the_commands(towers, table, tmp_path, capsys):
    model = ape_jax.fit(pairs=table, **towers, **QUICK)
    assert "model.save(DIR) keeps it" in capsys.readouterr().err
    before, texts = Path(model.directory), ["a red square"]
    z = model.encode_text(texts)
    model.save(tmp_path / "kept")
    assert not before.exists()
    recorded = json.loads((tmp_path / "kept/config.json").read_text())
    assert recorded["data.pairs"].startswith("workdir:data/pairs-")
    (tmp_path / "kept").rename(tmp_path / "moved")
    again = ape_jax.load(tmp_path / "moved")
    np.testing.assert_array_equal(again.encode_text(texts), z)
    # Its pairs are found, and the same command says that the run is finished.
    config = workdir.read_config(tmp_path / "moved")
    assert open_pairs(config.data.pairs).num_captions == 48
    (tmp_path / "moved/summary.json").unlink()  # As if it had been cut off there.
    assert loop.train_and_evaluate(config, tmp_path / "moved")["step"] == 4


def test_the_same_call_again_returns_the_finished_run(towers, table, tmp_path, monkeypatch):
    first = ape_jax.fit(pairs=table, workdir=tmp_path / "run", **towers, **QUICK)
    monkeypatch.setattr(loop.Loop, "train", None)
    again = ape_jax.fit(pairs=table, workdir=tmp_path / "run", **towers, **QUICK)
    assert again.summary == first.summary


def test_every_key_has_one_name_with_underscores():
    names = underscored()
    assert len(names) == len(schema.keys(Config)) - 4
    assert names["optim_lr"] == "optim.lr" and names["seed"] == "seed"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipe": "few_pear"}, "fit: recipe: no recipe is called 'few_pear'.*few_pairs"),
        ({"optim_lrr": 1.0}, "no such key 'optim_lrr'; did you mean 'optim_lr'"),
        ({"stepz": 3}, "no such key 'stepz'; did you mean 'steps'"),
        ({"learning_rate": 3}, "no such key 'learning_rate'; did you mean 'optim_lr'"),
        ({"steps": "3"}, "'steps': expected a value like .* found '3'"),
        ({"optim.lr": 1.0}, "'optim.lr': write config keys with underscores, optim_lr="),
        ({"optim_lr": "fast"}, "config.optim.lr: expected a number .* found 'fast'"),
        ({"pairs": [("no-such.png", "a")]}, r"pairs\[0\] \(no-such.png\): there is no such file"),
        ({"eval": {"test": 5}}, r"eval\['test'\]: expected a spec"),
        ({"image": ""}, "config.image.tower"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_wrong_is_one_sentence_and_leaves_no_directory(towers, tiny, changes, words):
    given = {"pairs": tiny / "pairs.jsonl", **towers, **QUICK, **changes}
    with pytest.raises(UserError, match=words) as error:
        ape_jax.fit(**given)
    assert "\n" not in str(error.value)


def test_the_import_is_light_and_touches_no_flags():
    code = (
        "import sys, ape_jax; assert 'jax' not in sys.modules and 'numpy' not in sys.modules; "
        "from absl import flags; known = set(flags.FLAGS); ape_jax.fit; "
        "assert not [f for f in set(flags.FLAGS) - known if f in ('config', 'workdir')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["language", "data_language"])
def test_languages_of_a_data_frame_are_those_of_its_column(
    towers, table, tmp_path, monkeypatch, name
):
    spoken = table.assign(tongue=["en", "it"] * 12, maker=["a"] * 12 + ["b"] * 12)
    found = []

    def stop(config, path):
        found.append(opened.sources(config))
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train_and_evaluate", stop)
    given = {**towers, **QUICK, name: "tongue", "data_domain": "maker", "train_folds": 2}
    with pytest.raises(KeyboardInterrupt):
        ape_jax.fit(pairs=spoken, eval=spoken, workdir=tmp_path / "run", **given)
    for pairs in (found[0].train, found[0].evals["eval"]):
        assert [pair.languages[0] for pair in pairs] == ["en", "it"] * 12
    train = found[0].train
    (domains,) = train.table.column("domain", train.rows)
    assert domains.to_pylist() == ["a"] * 12 + ["b"] * 12


def test_empty_captions_of_pairs_in_memory_are_left_out_and_counted(towers, tiny, tmp_path):
    pairs = [(pair.image.content, list(pair.captions)) for pair in open_pairs(tiny / "pairs.jsonl")]
    pairs[3:3] = [(pairs[0][0], " "), (tiny / "gone.png", "a bar")]
    given = {"pairs": pairs, "eval": pairs[2:], "data_max_skipped": 0.2, **towers, **QUICK}
    model = ape_jax.fit(data_on_error="skip", workdir=tmp_path / "run", **given)
    expected = {"empty caption": 1, "missing image": 1}
    assert model.summary["left_out"] == {"train": expected, "eval/eval": expected}
    assert model.summary["pairs"] == 24
    assert model.evaluate(pairs).images == 24
    with pytest.raises(UserError, match=r"there is no such file|a caption is empty"):
        ape_jax.fit(**given)
