"""Negative captions of one's own, from pairs on disk to the loss of a step."""

import json

import jax
import numpy as np
import pytest

from ape_jax import config as config_lib
from ape_jax.align.losses import objective
from ape_jax.errors import UserError
from ape_jax.features.dataset import FeatureStore
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.runs import build
from ape_jax.towers.files import reading
from ape_jax.training import loop, run
from ape_jax.training.blocks import Span
from ape_jax.training.input import opened
from ape_jax.training.input.device_feed import DeviceFeed
from ape_jax.training.input.host_feed import HostFeed
from ape_jax.training.step import contrastive_loss

HARD = 2


@pytest.fixture
def config(tiny_config, tiny, tmp_path):
    """Images have two negatives, of their colour or shape; red ones have one, black ones none."""
    lines = [json.loads(line) for line in (tiny / "pairs.jsonl").read_text().splitlines()]
    for line in lines:
        colour, shape = line["id"].split("-")
        others = [f"a {colour} {'bar' if shape != 'bar' else 'circle'}", f"the {shape} of green"]
        line["negatives"] = others[: {"red": 1, "black": 0}.get(colour, 2)]
        line["image"] = str(tiny / line["image"])
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    tiny_config.data.pairs, tiny_config.data.eval = str(tmp_path / "pairs.jsonl"), {}
    tiny_config.cache.dtype, tiny_config.loss.hard = "float32", HARD
    return tiny_config


def prepared(config):
    config = config_lib.resolve(config)
    config, sources = opened.settled(config)
    return run.prepare(config, sources, build.load_towers(config), FeatureStore())


def host_feed(made):
    model = made.aligned.model
    towers = model.image.tower, model.text.tower
    return HostFeed(made.dataset, *towers, made.aligned.config, made.aligned.mesh)


def test_each_image_meets_its_own_negatives_and_those_of_the_batch(config):
    made = prepared(config)
    aligned, texts = made.aligned, np.array(list(made.dataset.captions.texts))
    batch = next(host_feed(made).batches(0))
    rows = texts[batch["text"]]
    assert rows.shape == (16, 1 + HARD)
    pairs = list(made.dataset.pairs)
    for index, (caption, *others) in zip(batch["index"], rows):
        own = pairs[index]
        assert caption in own.captions and len(own.negatives) == len(set(others) - {caption})
        assert set(others) - {caption} <= set(own.negatives)
    placed, made_by = (
        mesh_lib.place_batch(batch, aligned.mesh),
        objective.from_config(aligned.config.loss),
    )
    model, frozen = aligned.model, aligned.frozen
    value = jax.jit(lambda t, f, b: contrastive_loss(model, made_by, aligned.mesh, t, f, b)[0])(
        aligned.trainable, frozen, placed
    )
    zimg = np.asarray(model.embed(aligned.trainable, frozen, model.image_features(frozen, placed)))
    ztxt = np.asarray(model.embed(aligned.trainable, frozen, model.text_features(frozen, placed)))
    ztxt = ztxt.reshape(16, 1 + HARD, -1).astype(np.float64)
    scale = float(model.logit_scale(aligned.trainable, frozen)[0])
    total = 0.0
    for i in range(16):
        same = (batch["index"] == batch["index"][i]) & (np.arange(16) != i)
        column = scale * zimg.astype(np.float64) @ ztxt[i, 0]
        row = scale * ztxt[:, 0] @ zimg[i].astype(np.float64)
        beside = scale * ztxt[:, 1:] @ zimg[i].astype(np.float64)
        none = (rows[:, 1:] == rows[:, :1]) | (rows[:, 1:] == rows[i, 0])
        row[same] = column[same] = beside[none] = -np.inf
        total += np.log(np.exp(column - column[i]).sum())
        total += np.log(np.exp(np.concatenate([row, beside.ravel()]) - row[i]).sum())
    assert float(value) == pytest.approx(total / 32, rel=1e-5)


def test_both_feeds_make_the_same_blocks(config):
    made = prepared(config)
    host = host_feed(made)
    device = DeviceFeed(made.dataset, host.sampler, host.block_steps, made.aligned.mesh)
    (span, ours), (_, theirs) = (next(feed.blocks(0, 4)) for feed in (host, device))
    assert isinstance(span, Span)
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_a_run_is_trained_in_micro_batches_and_with_prefixes(config, tmp_path):
    config.train.micro_batch, config.train.steps, config.train.checkpoint_every = 8, 4, 2
    config.loss.dims = (8,)
    whole = loop.train_and_evaluate(config_lib.resolve(config), tmp_path / "whole")
    assert whole["step"] == 4
    lines = (tmp_path / "whole/metrics.jsonl").read_text().splitlines()
    assert np.isfinite([json.loads(x)["train/loss"] for x in lines if "train/loss" in x]).all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"loss.name": "sigmoid"}, r"config\.loss\.hard: 'sigmoid' takes no negative captions"),
        ({"latent.mixup": 1.0}, r"config\.loss\.hard: latent\.mixup makes images of two"),
        ({"structure.weight": 1.0}, r"config\.loss\.hard: structure\.weight keeps"),
        ({"method": "cca"}, r"config\.loss\.hard: 2 has no effect with method='cca'"),
    ],
)
def test_what_they_do_not_go_with_is_refused(config, settings, said):
    flat = {**config_lib.flatten(config_lib.resolve(config)), **settings}
    with pytest.raises(UserError, match=said):
        config_lib.resolve(flat)


def test_a_column_that_is_missing_or_unused_is_said(config, tiny, tmp_path, capsys):
    config.loss.hard = 0
    reading._said.clear()
    opened.settled(config_lib.resolve(config))
    assert "36 negative captions are not used; --config.loss.hard=1" in capsys.readouterr().err
    config.loss.hard, config.data.pairs = 1, str(tiny / "pairs.jsonl")
    with pytest.raises(UserError, match=r"config\.loss\.hard: .* holds no negative captions"):
        loop.train_and_evaluate(config_lib.resolve(config), tmp_path / "run")


def test_without_them_the_step_is_the_one_it_was(config):
    config.loss.hard = 0
    batch = next(host_feed(prepared(config)).batches(0))
    assert batch["text"].shape == (16,)
