"""Rows that cannot be used, in training: left out, counted, listed, and bounded."""

import collections
import json

import pytest

from ape_jax import config as config_lib
from ape_jax.errors import UserError
from ape_jax.features.dataset import FeatureStore
from ape_jax.training import extraction, loop
from tests.broken import BROKEN

KINDS = collections.Counter(kind for kind, _ in BROKEN)


@pytest.fixture
def config(tiny_config, broken, tmp_path):
    tiny_config.data.pairs, tiny_config.data.eval = str(broken), {"same": str(broken)}
    tiny_config.data.on_error, tiny_config.data.max_skipped = "skip", 0.4
    tiny_config.train.steps = 2
    tiny_config.cache.dir = str(tmp_path / "features")
    return tiny_config


def train(config, path, store=None):
    return loop.train_and_evaluate(config_lib.resolve(config), path, store)


def listed(path):
    return [json.loads(line) for line in (path / "left_out.jsonl").read_text().splitlines()]


def in_step(config):
    config.image.tune, config.image.standardize, config.text.tune = "full", False, "full"


@pytest.mark.parametrize("views", ["cached", "in memory", "in the step"])
def test_every_kind_is_left_out_counted_and_listed(config, broken, tmp_path, capsys, views):
    if views == "in memory":
        config.cache.dir = "none"
    if views == "in the step":
        in_step(config)
        config.train.steps = 4
    summary = train(config, tmp_path / "run")
    assert summary["pairs"] == 24 + 2 * (views == "in the step")
    assert summary["left_out"] == {"train": KINDS, "eval/same": KINDS}
    assert summary["images_skipped_in_step"] == 2 * (views == "in the step")
    found = listed(tmp_path / "run")
    assert collections.Counter(entry["kind"] for entry in found) == KINDS
    assert {entry["of"] for entry in found} == {"train"}
    where = {entry["kind"]: entry["where"] for entry in found}
    assert where["damaged image"] == f"{broken}:10 (cut.png)"
    assert where["damaged row"] == f"{broken}:18"
    said = capsys.readouterr().err
    assert "left_out.jsonl" in said and "left out 4 of 32 rows and 4 of 28 images" in said


def test_features_from_the_cache_leave_out_the_same_with_the_same_reasons(config, tmp_path):
    assert train(config, tmp_path / "a")["left_out"] == train(config, tmp_path / "b")["left_out"]
    assert listed(tmp_path / "a") == listed(tmp_path / "b")
    store = FeatureStore()
    for name in "cd":
        train(config, tmp_path / name, store)
        assert listed(tmp_path / name) == listed(tmp_path / "a")


@pytest.mark.parametrize(
    ("share", "step", "sentence"),
    [
        (0.1, False, "data.pairs: 4 of 32 rows and 2 of 28 images"),
        (0.25, False, "training: 4 of 32 rows and 4 of 28 images"),
        (0.25, True, "training: 4 of 32 rows and 4 of 28 images"),
    ],
)
def test_a_run_stops_above_the_share_that_may_be_left_out(config, tmp_path, share, step, sentence):
    config.data.max_skipped = share
    if step:
        in_step(config)
        config.train.steps, config.data.eval = 40, {}
    with pytest.raises(UserError) as error:
        train(config, tmp_path / "run")
    message = str(error.value)
    assert sentence in message and f"data.max_skipped={share}" in message
    assert "gone.png" in message and "a caption is empty" in message and "\n" not in message


def test_by_default_the_first_of_each_kind_and_the_number_end_the_run(config, tmp_path):
    config.data.on_error = "error"
    with pytest.raises(UserError, match="4 of 32 rows and 2 of 28 images") as error:
        train(config, tmp_path / "run")
    kinds = set(KINDS) - {"not an image", "damaged image"}
    assert all(kind in str(error.value) for kind in kinds)
    assert not (tmp_path / "run").exists()


def test_extraction_lists_the_same(config, tmp_path):
    extraction.extract(config_lib.resolve(config), tmp_path / "extracted")
    kinds = collections.Counter(entry["kind"] for entry in listed(tmp_path / "extracted"))
    assert kinds == KINDS


def test_nothing_is_written_where_nothing_is_left_out(config, tiny, tmp_path):
    config.data.pairs, config.data.eval = str(tiny / "pairs.jsonl"), {}
    assert "left_out" not in train(config, tmp_path / "run")
    assert not (tmp_path / "run/left_out.jsonl").exists()


class Killed(BaseException):
    """Not an Exception: nothing may catch it and tidy up."""


def test_a_resumed_run_knows_what_was_skipped_before_it_was_killed(
    config, tmp_path, blocks_through
):
    def until(blocks):
        for span, block in blocks:
            if span.first + span.stop > 4:
                raise Killed
            yield span, block

    in_step(config)
    config.data.eval, config.train.steps, config.train.checkpoint_every = {}, 5, 2
    whole = train(config, tmp_path / "whole")
    heal = blocks_through(until)
    with pytest.raises(Killed):
        train(config, tmp_path / "killed")
    heal()
    before = listed(tmp_path / "killed")
    resumed = train(config, tmp_path / "killed")
    assert len(before) == 8 and whole["images_skipped_in_step"] == 2
    assert resumed["images_skipped_in_step"] == 2 and resumed["left_out"] == whole["left_out"]
    by_place = [
        sorted((entry["where"], entry["kind"]) for entry in listed(tmp_path / name))
        for name in ("whole", "killed")
    ]
    assert by_place[0] == by_place[1]
