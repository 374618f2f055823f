"""Several layers of a tower, from the config to a run and its model."""

import json

import numpy as np
import pytest

import ape_jax
from ape_jax import config as config_lib
from ape_jax.errors import UserError
from ape_jax.runs import build
from ape_jax.runs.directory import workdir
from ape_jax.training import loop

LAYERS = {"image.layer": (1, -1), "image.pooling": "cls+mean", "embed": 24}
LAYERS |= {"image.head.name": "linear"}


@pytest.fixture(scope="module")
def joined(tiny, tmp_path_factory):
    """A run that reads two layers, and its config."""
    path = tmp_path_factory.mktemp("joined")
    return path / "run", trained(tiny, path, LAYERS)


def trained(tiny, path, settings):
    flat = {
        "image.tower": str(tiny / "image"),
        "text.tower": str(tiny / "text"),
        "data.pairs": str(tiny / "pairs.jsonl"),
        "data.eval": {"shapes": str(tiny / "pairs.jsonl")},
        "image.dtype": "float32",
        "text.dtype": "float32",
        "cache.dtype": "float32",
        "cache.dir": str(path / "features"),
        "train.batch": 16,
        "train.steps": 4,
        "eval.batch": 8,
    }
    config = config_lib.resolve(config_lib.unflatten({**flat, **settings}))
    loop.train_and_evaluate(config, path / "run")
    return config


def test_the_layers_are_on_record_and_read_again(joined):
    path, config = joined
    assert json.loads((path / "config.json").read_text())["image.layer"] == [1, -1]
    loop.train_and_evaluate(config, path)  # The same config, although JSON has no tuples.
    assert workdir.read_config(path).image.layer == (1, -1)


def test_the_head_takes_the_vectors_of_all_layers(joined, tiny):
    path, config = joined
    read = build.load_towers(config)
    model = build.make_model(config, read)
    assert model.image.tower.config.pooled_width("cls+mean") == 4 * read.image.config.width
    assert model.init_heads(0)["image_head"]["projection"]["kernel"].shape[0] == 4 * 32
    images = [str(tiny / "red-square.png"), str(tiny / "blue-bar.png")]
    z = ape_jax.load(path).encode_image(images)
    assert z.shape == (2, 24) and np.isfinite(z).all()


def test_features_of_other_layers_are_others(tiny, joined):
    path, config = joined
    before = {p.name for p in (path.parent / "features").iterdir()}
    other = config.replace({"image.layer": (-1, 1)})
    loop.train_and_evaluate(other, path.parent / "order")
    assert len({p.name for p in (path.parent / "features").iterdir()} - before) == 1


def test_layers_on_the_command_line():
    config = config_lib.default()
    config_lib.override(config, {"image.layer": "9,11,-1"})
    assert config.image.layer == (9, 11, -1)


@pytest.mark.parametrize("value", ["(9,)", "(9,9)", "(9,-2)", "(9,1.5)", "()", "(True,2)"])
def test_other_lists_of_layers_are_refused(value):
    config = config_lib.default()
    with pytest.raises(
        UserError, match=r"config\.image\.layer: expected an integer .*, or several"
    ):
        config_lib.override(config, {"image.layer": value})


@pytest.mark.parametrize(
    "settings",
    [
        {"text.head.name": "linear+token_mlp", "start.method": "cca", "text.pooling": "cls+mean"},
        {"text.head.name": "transformer", "text.head.depth": 1, "cache.place": "disk"},
        {"text.head.name": "token_mlp", "cache.text": False},
    ],
    ids=["few_pairs", "transformer on disk", "encoded in the step"],
)
def test_heads_take_the_tokens_of_all_text_layers(tiny, tmp_path, settings):
    config = trained(tiny, tmp_path, {**LAYERS, "text.layer": (1, -1), **settings})
    model = build.make_model(config, build.load_towers(config))
    assert model.text.token_width == 2 * 32
    loaded = ape_jax.load(tmp_path / "run")
    texts = ["a red square", "the picture of a blue bar"]
    z = loaded.encode_text(texts)
    # One at a time, padded, they are what they are together and packed.
    np.testing.assert_allclose(loaded.encode_text(texts[:1])[0], z[0], atol=1e-5)
    assert np.isfinite(z).all() and (z[0] @ z[1]) < 0.9999


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"text.layer": (1, 7)}, r"config\.text\.layer: layer is 7; this tower has 2 blocks"),
        ({"text.layer": (0, 1), "text.tune": "full"}, r"text\.layer: several .*, found text\.tune"),
        ({"image.layer": (1, 7)}, r"config\.image\.layer: layer is 7; this tower has 2 blocks"),
        ({"image.tune": "adapter", "image.standardize": False}, "of a frozen tower, found"),
        (
            {
                "image.pooling": "none",
                "image.head.name": "token_pool_mlp",
                "image.standardize": False,
            },
            "'none' is no pooling",
        ),
    ],
)
def test_what_cannot_be_joined_is_one_sentence(tiny, tmp_path, settings, words):
    with pytest.raises(UserError, match=words):
        trained(tiny, tmp_path, {**LAYERS, **settings})
