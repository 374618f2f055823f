"""Unpaired images and texts of a run made ready: statistics, closed forms, and what is refused."""

import json

import numpy as np
import pytest

from ape_jax import config as config_lib
from ape_jax.align.closed_form import Unmatched, cca_matched
from ape_jax.errors import UserError
from ape_jax.features.dataset import FeatureStore
from ape_jax.runs import build
from ape_jax.training import loop, run, solve
from ape_jax.training.captions.pooled import PooledRows
from ape_jax.training.input import opened


def made_of(tiny_config, tiny, folder):
    """A config of half of the tiny pairs, with all drawings and texts beside."""
    lines = (tiny / "pairs.jsonl").read_text().replace('"image": "', f'"image": "{tiny}/')
    (folder / "half.jsonl").write_text("\n".join(lines.splitlines()[::2]))
    texts = [text for line in lines.splitlines() for text in json.loads(line)["captions"]]
    (folder / "texts.txt").write_text("\n".join(texts))
    tiny_config.data.pairs = str(folder / "half.jsonl")
    tiny_config.data.images, tiny_config.data.texts = str(tiny), str(folder / "texts.txt")
    tiny_config.train.batch, tiny_config.text.head.depth = 8, 2
    tiny_config.image.head.name, tiny_config.text.head.name = "linear", "linear+token_mlp"
    tiny_config.start.method, tiny_config.closed.l2 = "cca", 1.0
    tiny_config.closed.power = 1.0
    tiny_config.unpaired.klot, tiny_config.unpaired.batch = 0.5, 16
    tiny_config.latent.dropout = 0.2
    return tiny_config


@pytest.fixture
def config(tiny_config, tiny, tmp_path):
    return made_of(tiny_config, tiny, tmp_path)


def prepared(config):
    config = config_lib.resolve(config)
    return run.prepare(config, opened.sources(config), build.load_towers(config), FeatureStore())


def test_statistics_over_unpaired_images_are_those_of_all(config, tiny):
    config.unpaired.klot, config.data.texts, config.unpaired.statistics = 0.0, "", True
    config.unpaired.batch = 256
    made = prepared(config)
    rows = [np.asarray(x, np.float64)[:, 0] for x in (made.dataset.pooled, made.unpaired.images)]
    both = np.concatenate(rows)
    statistics = made.aligned.frozen["statistics"]
    np.testing.assert_allclose(statistics["center"], both.mean(0), atol=1e-5)
    np.testing.assert_allclose(statistics["spread"], both.std(0), atol=1e-5)


def test_a_closed_form_matches_unpaired_data(config, tmp_path):
    config.unpaired.klot, config.unpaired.match, config.unpaired.batch = 0.0, 0.7, 256
    config.start.method, config.method, config.latent.dropout = "none", "cca", 0.0
    config.embed = 8
    made = prepared(config)
    paired = solve._paired("mean", made.dataset, made.aligned.frozen["statistics"])
    texts = PooledRows(made.unpaired.texts, "mean")
    others = Unmatched(text=texts, image=made.unpaired.images)
    fit = cca_matched(paired, others, 1.0, dim=8, power=1.0, weight=0.7)
    found = made.aligned.trainable["text_head"]["projection"]["kernel"]
    expected = fit.text.kernel
    ratio = np.linalg.norm(found) / np.linalg.norm(expected)
    np.testing.assert_allclose(found, expected * ratio, rtol=1e-4, atol=1e-6)
    summary = loop.train_and_evaluate(config_lib.resolve(config), tmp_path / "run")
    assert summary["closed_form"]["match"] == 0.7
    assert summary["closed_form"]["unpaired_texts"] == 48


@pytest.mark.parametrize("batch, words", [(60, "more than"), (20, "divide")])
def test_a_batch_that_cannot_be_is_refused(config, batch, words):
    config.unpaired.batch = batch
    with pytest.raises(UserError, match=rf"config\.unpaired\.batch.*{words}"):
        prepared(config)
