"""Training with the side loss on subwords: resuming, and what is left of its layer."""

import json
import pathlib

import jax
import numpy as np
import pytest

import ape_jax
from ape_jax import config as config_lib
from ape_jax.align.subwords import SUBWORDS
from ape_jax.errors import UserError
from ape_jax.runs.restore import restore
from ape_jax.training import loop
from tests.training.test_loop import (  # noqa: F401
    Killed,
    assert_same_bits,
    final_parameters,
    killed_at,
)


def settings(config):
    config.subwords.weight, config.image.head.name, config.data.eval = 0.5, "linear", {}
    config.text.head.depth, config.optim.ema = 1, 0.9
    return config


@pytest.fixture
def config(tiny_config):
    return settings(tiny_config)


@pytest.fixture(scope="module")
def trained(new_tiny_config, tmp_path_factory):
    """The work directory and summary of a run of sixty steps."""
    path, config = tmp_path_factory.mktemp("subwords") / "run", settings(new_tiny_config())
    config.train.steps, config.train.log_every, config.train.checkpoint_every = 60, 1, 0
    config.optim.lr = 1e-2
    return path, loop.train_and_evaluate(config_lib.resolve(config), path)


def test_the_subwords_of_captions_are_learnt(trained):
    lines = map(json.loads, (trained[0] / "metrics.jsonl").read_text().splitlines())
    seen = [line for line in lines if "train/subwords" in line]
    found = [line["train/subwords"] for line in seen]
    assert np.mean(found[-5:]) < 0.8 * found[0]
    total = [line["train/contrastive"] + 0.5 * line["train/subwords"] for line in seen]
    np.testing.assert_allclose([line["train/loss"] for line in seen], total, rtol=1e-5)


def test_a_finished_model_has_no_layer(trained):
    path, summary = trained
    _, layer = final_parameters(path, SUBWORDS)
    classes = layer["trainable"]["bias"].size
    assert np.abs(layer["trainable"]["kernel"]).max() > 0 and set(layer) == {"trainable", "average"}
    model = restore(path)
    assert SUBWORDS not in model.trainable and SUBWORDS not in model.frozen
    assert model.meta[SUBWORDS]["classes"] == classes
    own = sum(x.size for x in jax.tree.leaves(model.trainable))
    assert summary["parameters_trained"] == own
    assert ape_jax.load(path).encode_text(["a red square"]).shape[0] == 1


def test_every_id_of_a_training_caption_is_a_class(trained):
    path, _ = trained
    file = pathlib.Path(restore(path).config.data.pairs)
    rows = [json.loads(x) for x in file.read_text().splitlines()]
    words = {word for row in rows for text in row["captions"] for word in text.split()}
    _, layer = final_parameters(path, SUBWORDS)
    assert layer["trainable"]["bias"].size == len(words) + 2  # And both ends of a caption.


def test_killed_and_resumed_ends_with_the_same_bits(config, tmp_path, killed_at):  # noqa: F811
    config = config_lib.resolve(config)
    loop.train_and_evaluate(config, tmp_path / "whole")
    heal = killed_at(6)
    with pytest.raises(Killed):
        loop.train_and_evaluate(config, tmp_path / "cut")
    heal()
    loop.train_and_evaluate(config, tmp_path / "cut")
    for item in ("trainable", "average", "opt_state", SUBWORDS):
        assert_same_bits(*(final_parameters(tmp_path / name, item) for name in ("whole", "cut")))


def test_several_captions_and_negatives_train(config, tiny, tmp_path):
    rows = [json.loads(x) for x in (tiny / "pairs.jsonl").read_text().splitlines()]
    for row in rows:
        row |= {"image": str(tiny / row["image"]), "negatives": ["a blue circle", "a red bar"]}
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.data.pairs, config.loss.positives, config.loss.hard = str(file), 2, 1
    config.train.steps, config.train.checkpoint_every = 2, 0
    assert loop.train_and_evaluate(config_lib.resolve(config), tmp_path / "run")["step"] == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image.head.name": "identity"}, "the image side learns from it, and with"),
        (
            {"text.tower": "features:8", "image.tower": "features:8", "data.pairs": "features:x"},
            "it takes the subwords of captions, and text.tower='features:8' gives vectors",
        ),
        ({"text.tower": "torch:st:a/b"}, "text.tower='torch:st:a/b' gives vectors without token"),
    ],
)
def test_what_the_side_loss_cannot_be_taken_of_is_refused(config, changes, words):
    flat = {**config_lib.flatten(config), **changes}
    if "text.tower" in changes:
        flat["text.head.name"] = "linear"
        flat = {k: v for k, v in flat.items() if k not in ("text.head.depth", "text.head.width")}
    with pytest.raises(UserError, match=r"^config\.subwords\.weight: ") as error:
        config_lib.resolve(config_lib.unflatten(flat))
    assert words in str(error.value)


def test_without_training_it_has_no_effect(config):
    flat = {**config_lib.flatten(config), "method": "cca"}
    with pytest.raises(UserError, match=r"^config\.subwords\.weight: 0\.5 has no effect with"):
        config_lib.resolve(config_lib.unflatten(flat))
