"""The config's loss keys, from pairs on disk to the loss of a step."""

import json

import jax
import numpy as np
import pytest

from ape_jax import config as config_lib
from ape_jax.align import losses
from ape_jax.align.losses import objective
from ape_jax.errors import UserError
from ape_jax.features.dataset import FeatureStore
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.runs import build
from ape_jax.training import loop, run
from ape_jax.training.input import opened
from ape_jax.training.input.host_feed import HostFeed
from ape_jax.training.step import contrastive_loss


@pytest.fixture
def config(tiny_config, tiny, tmp_path):
    """Each colour has one caption for all of its shapes, and one of its own for each."""
    lines = map(json.loads, (tiny / "pairs.jsonl").read_text().splitlines())
    with (tmp_path / "pairs.jsonl").open("w") as file:
        for line in lines:
            colour = line["id"].split("-")[0]
            line["image"] = str(tiny / line["image"])
            line["captions"] = [f"a {colour} picture", line["captions"][0]]
            file.write(json.dumps(line) + "\n")
    tiny_config.data.pairs, tiny_config.data.eval = str(tmp_path / "pairs.jsonl"), {}
    tiny_config.cache.dtype = "float32"
    return tiny_config


def first_batch(config):
    config = config_lib.resolve(config)
    made = run.prepare(config, opened.sources(config), build.load_towers(config), FeatureStore())
    towers = made.aligned.model.image.tower, made.aligned.model.text.tower
    return made, next(HostFeed(made.dataset, *towers, config, made.aligned.mesh).batches(0))


def loss_of(made, batch):
    """As the step has it, on the mesh; and the embeddings."""
    model, frozen = made.aligned.model, made.aligned.frozen
    placed = mesh_lib.place_batch(batch, made.aligned.mesh)
    options = objective.from_config(made.aligned.config.loss)
    loss = jax.jit(lambda t, f, b: contrastive_loss(model, options, made.aligned.mesh, t, f, b)[0])(
        made.aligned.trainable, frozen, placed
    )
    zimg = model.embed(made.aligned.trainable, frozen, model.image_features(frozen, placed))
    ztxt = model.embed(made.aligned.trainable, frozen, model.text_features(frozen, placed))
    scale, _ = model.logit_scale(made.aligned.trainable, frozen)
    return float(loss), jax.device_get((zimg, ztxt)), float(scale)


def captions(made, batch):
    return np.array(made.dataset.captions.texts)[batch["text"]]


def test_one_caption_under_several_images_is_masked(config):
    config.loss.same = "image+caption"
    made, batch = first_batch(config)
    texts = captions(made, batch)
    assert len(set(texts)) < len(texts)  # There is something to mask.
    loss, (zimg, ztxt), scale = loss_of(made, batch)
    place = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    ids = np.array([place[text] for text in texts])
    assert loss == pytest.approx(float(losses.softmax_reference(zimg, ztxt, scale, ids=ids)), 1e-5)
    alone = float(losses.softmax_reference(zimg, ztxt, scale, ids=batch["index"]))
    assert abs(loss - alone) > 1e-3


def test_two_captions_an_image_are_both_positives(config):
    config.loss.positives = 2
    made, batch = first_batch(config)
    texts = captions(made, batch)
    assert texts.shape == (16, 2) and all(a != b for a, b in texts)
    loss, (zimg, ztxt), scale = loss_of(made, batch)
    both = ztxt.reshape(16, 2, -1)
    parts = [losses.softmax_reference(zimg, both[:, p], scale) for p in range(2)]
    assert loss == pytest.approx(float(np.mean(parts)), rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss.positives": 2, "loss.same": "image+caption", "latent.mixup": 1.0},
        {"loss.negatives": "local", "loss.local_groups": 4, "loss.same": "none"},
        {"structure.weight": 1.0, "structure.ramp": 0, "train.micro_batch": 8},
        {"loss.name": "sigmoid", "loss.normalize": "square", "loss.bias": -10.0},
    ],
    ids=lambda c: next(iter(c)),
)
def test_training_with_the_key_lowers_the_loss(config, changes, tmp_path):
    flat = {**config_lib.flatten(config), **changes}
    flat.update({"train.steps": 30, "train.log_every": 1, "optim.lr": 1e-2})
    flat["train.checkpoint_every"] = 0
    loop.train_and_evaluate(config_lib.resolve(config_lib.unflatten(flat)), tmp_path / "run")
    lines = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    seen = [line["train/loss"] for line in lines if "train/loss" in line]
    assert len(seen) == 30 and np.isfinite(seen).all()
    assert np.mean(seen[-5:]) < np.mean(seen[:5])


def test_several_captions_of_a_trained_tower(config):
    config.text.tune, config.loss.positives = "full", 2
    made, batch = first_batch(config)
    assert batch["ids"].shape == (32, 8) and batch["text"].shape == (16, 2)
    assert np.isfinite(loss_of(made, batch)[0])


def test_groups_that_do_not_divide_the_batch_are_named(config, tmp_path):
    config.loss.negatives, config.loss.local_groups = "local", 3
    with pytest.raises(UserError, match=r"config\.loss\.local_groups: 3 .* 16 pairs"):
        loop.train_and_evaluate(config_lib.resolve(config), tmp_path / "run")
