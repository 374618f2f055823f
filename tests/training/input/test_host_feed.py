"""Batches are functions of (seed, step), cached or not."""

import itertools

import numpy as np
import pytest

from ape_jax import config as config_lib
from ape_jax.features.dataset import FeatureStore
from ape_jax.runs import build
from ape_jax.training import run
from ape_jax.training.input import opened
from ape_jax.training.input.host_feed import HostFeed


def prepared(config):
    config = config_lib.resolve(config)
    return run.prepare(config, opened.sources(config), build.load_towers(config), FeatureStore())


def host_feed(made):
    towers = made.aligned.model.image.tower, made.aligned.model.text.tower
    return HostFeed(made.dataset, *towers, made.aligned.config, made.aligned.mesh)


def batches(made, start, count):
    return list(itertools.islice(host_feed(made).batches(start), count))


def assert_equal(got, expected):
    assert len(got) == len(expected)
    for a, b in zip(got, expected):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize(("views", "tune"), [(2, "frozen"), (0, "frozen"), (2, "full")])
def test_starting_late_equals_skipping(tiny_config, views, tune):
    tiny_config.cache.views, tiny_config.augment.flip = views, True
    tiny_config.text.tune = tune
    made = prepared(tiny_config)
    assert_equal(batches(made, 3, 2), batches(made, 0, 5)[3:])


def test_cached_and_raw_batches_hold_the_same_records_and_captions(tiny_config):
    cached = batches(prepared(tiny_config), 0, 4)
    tiny_config.cache.views = 0
    raw = batches(prepared(tiny_config), 0, 4)
    for a, b in zip(cached, raw):
        for name in ("index", "tokens", "lengths"):
            np.testing.assert_array_equal(a[name], b[name])
        assert "image" in b and "pooled" in a


def test_an_epoch_shows_every_record_once(tiny_config):
    tiny_config.train.batch = 8
    seen = np.concatenate([b["index"] for b in batches(prepared(tiny_config), 0, 3)])
    assert sorted(seen) == list(range(24))


def test_a_trained_text_tower_gets_ids_of_one_length(tiny_config):
    tiny_config.text.tune = "full"
    got = batches(prepared(tiny_config), 0, 3)
    assert {b["ids"].shape for b in got} == {(16, 8)}
    assert all("tokens" not in b for b in got)


def test_skipped_images_leave_the_rest_in_training(tiny_config, tiny, tmp_path, capsys):
    for path in tiny.glob("*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pairs.jsonl").write_text((tiny / "pairs.jsonl").read_text())
    (tmp_path / "red-bar.png").write_bytes(b"broken")
    tiny_config.data.pairs = str(tmp_path / "pairs.jsonl")
    tiny_config.data.on_error = "skip"
    made = prepared(tiny_config)
    assert len(made.dataset.pairs) == 23
    assert "red-bar.png" in capsys.readouterr().err
    assert "red-bar" not in {made.dataset.pairs[i].id for i in range(23)}
