"""Pairs at the frontier, from the cache or encoded in the step."""

import json

import numpy as np
import pytest

from ape_jax import config as config_lib
from ape_jax.data.pairs import Pair
from ape_jax.errors import UserError
from ape_jax.features import dataset
from ape_jax.features.dataset import FeatureStore
from ape_jax.features.ragged import RaggedTokens
from ape_jax.images.decode import ImageRef
from ape_jax.runs import build
from ape_jax.training import loop, run
from ape_jax.training.input import opened


def prepared(config, store=None):
    config = config_lib.resolve(config)
    towers = build.load_towers(config)
    return run.prepare(config, opened.sources(config), towers, store or FeatureStore())


def losses(config, workdir):
    loop.train_and_evaluate(config_lib.resolve(config), workdir)
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line["train/loss"] for line in lines if "train/loss" in line]


def test_losses_with_the_cache_are_those_without_it_at_every_step(tiny_config, tmp_path):
    tiny_config.train.steps, tiny_config.train.log_every = 20, 1
    tiny_config.data.eval, tiny_config.train.checkpoint_every = {}, 0
    tiny_config.cache.dtype = "float32"
    on = losses(tiny_config, tmp_path / "on")
    tiny_config.cache.views, tiny_config.cache.text = 0, False
    off = losses(tiny_config, tmp_path / "off")
    assert len(on) == 20 and on[0] != on[-1]
    np.testing.assert_allclose(on, off, rtol=1e-5)


@pytest.mark.slow
def test_losses_of_the_demo_towers_with_the_cache_are_those_without_it(tiny_config, tmp_path):
    tiny_config.image.tower, tiny_config.text.tower = "demo:vit_s14", "demo:minilm"
    tiny_config.image.size, tiny_config.image.layer, tiny_config.image.pooling = 112, 9, "cls+mean"
    test_losses_with_the_cache_are_those_without_it_at_every_step(tiny_config, tmp_path)


def test_words_are_left_out_of_training_captions_alone(tiny_config):
    store = FeatureStore()
    plain = prepared(tiny_config, store)
    tiny_config.augment.words = (4, 0.3)
    made = prepared(tiny_config, store)
    assert made.dataset.pooled is plain.dataset.pooled  # Not encoded again.
    assert len(made.dataset.captions.texts) > len(plain.dataset.captions.texts)
    assert len(made.dataset.tokens) == len(made.dataset.captions.texts)
    assert made.tasks[0].dataset.captions.texts == plain.tasks[0].dataset.captions.texts


def test_captions_encoded_in_the_step_are_cached_for_evaluation_only(tiny_config):
    tiny_config.cache.text = False
    made = prepared(tiny_config)
    assert made.dataset.tokens is None and made.dataset.pooled is not None
    assert len(made.tasks[0].dataset.tokens) == 48


def test_features_have_the_type_of_the_config(tiny_config):
    made = prepared(tiny_config).dataset
    assert made.pooled.dtype.name == made.tokens.flat.dtype.name == "bfloat16"
    test = prepared(tiny_config).tasks[0].dataset
    assert test.pooled.dtype.name == test.tokens.flat.dtype.name == "float32"
    tiny_config.cache.dtype = "float32"
    full = prepared(tiny_config).dataset
    assert full.pooled.dtype.name == full.tokens.flat.dtype.name == "float32"
    np.testing.assert_array_equal(full.pooled[:].astype(made.pooled.dtype), made.pooled[:])


def test_runs_of_one_process_read_the_disk_once(tiny_config):
    store = FeatureStore()
    first = prepared(tiny_config, store).dataset
    second = prepared(tiny_config, store).dataset
    assert first.pooled is second.pooled and first.tokens is second.tokens


def test_memory_only_needs_no_directory(tiny_config):
    on_disk = prepared(tiny_config)
    tiny_config.cache.dir = "none"
    in_memory = prepared(tiny_config)
    assert in_memory.dataset.pooled.tobytes() == on_disk.dataset.pooled[:].tobytes()
    assert in_memory.dataset.tokens.flat.tobytes() == on_disk.dataset.tokens.flat[:].tobytes()


def test_changed_caption_is_refused_by_name_and_encoded_anew(tiny_config, tiny, tmp_path, capsys):
    text = (tiny / "pairs.jsonl").read_text().replace('"image": "', f'"image": "{tiny}/')
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(text)
    tiny_config.data.pairs, tiny_config.data.eval = str(pairs), {}
    before = prepared(tiny_config).dataset
    pairs.write_text(text.replace("a red square", "a red circle of the bar"))
    capsys.readouterr()
    after = prepared(tiny_config).dataset
    said = capsys.readouterr().err
    assert "not used: " in said and "captions: 48 texts" in said
    assert "pairs content: " in said
    assert len(after.tokens.flat) != len(before.tokens.flat)


@pytest.mark.parametrize("on_error", ["error", "skip"])
def test_unreadable_image_is_an_error_or_left_out_also_from_the_cache(
    tiny_config, tiny, tmp_path, capsys, on_error
):
    for path in tiny.glob("*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pairs.jsonl").write_text((tiny / "pairs.jsonl").read_text())
    (tmp_path / "red-bar.png").write_bytes(b"broken")
    tiny_config.data.pairs = str(tmp_path / "pairs.jsonl")
    tiny_config.data.eval, tiny_config.data.on_error = {}, on_error
    for _ in range(2):
        if on_error == "error":
            with pytest.raises(UserError, match=r"red-bar\.png"):
                prepared(tiny_config)
            continue
        dataset = prepared(tiny_config).dataset
        assert len(dataset.pairs) == len(dataset.pooled) == 23
        assert "training: left out 1 of 24" in capsys.readouterr().err


def record(i):
    """A pair that is known by its number."""
    return Pair(ImageRef("", ""), (), str(i))


def test_a_smaller_sample_is_a_part_of_a_larger_one(rng):
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 4, 20))])
    rows = rng.integers(0, 30, offsets[-1])
    lengths = rng.integers(1, 5, 30)
    tokens = RaggedTokens(
        rng.normal(size=(lengths.sum(), 3)), np.concatenate([[0], np.cumsum(lengths)])
    )
    captions = dataset.Captions(tuple(map(str, range(30))), rows, offsets)
    pooled = np.arange(20.0).reshape(20, 1, 1)
    whole = dataset.Dataset([record(i) for i in range(20)], captions, pooled, tokens)
    small, large = whole.sample(5, seed=1), whole.sample(12, seed=1)
    assert set(small.pairs) < set(large.pairs)
    assert set(small.pairs) != set(whole.sample(5, seed=2).pairs)
    for place, pair in enumerate(large.pairs):
        old = int(pair.id)
        assert large.pooled[place] == old
        ours = large.captions.text_index[slice(*large.captions.offsets[place : place + 2])]
        theirs = rows[slice(*offsets[old : old + 2])]
        assert [large.captions.texts[i] for i in ours] == [str(i) for i in theirs]
        np.testing.assert_array_equal(large.tokens.mean()[ours], tokens.mean()[theirs])
    assert whole.sample(20, seed=0).captions.texts == tuple(str(i) for i in np.unique(rows))


def test_store_makes_a_thing_once():
    kept, made = FeatureStore(), []
    for _ in range(3):
        kept.get("key", lambda: made.append(1) or 7)
    assert kept.get("key", lambda: 8) == 7 and made == [1]
