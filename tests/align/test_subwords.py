"""The side loss on subwords in the loss of a step: which bags it takes, and what it is added to."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ape_jax.align import heads, subwords
from ape_jax.align.latent import Latent, mix
from ape_jax.align.subwords import SUBWORDS, Subwords
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.training.step import contrastive_loss
from tests.align.test_structure import PAIRS, WIDTH, make_batch, model  # noqa: F401

TEXTS = ["a red cat", "a cat a cat", "a dog", "never used", "red red dog"]
COUNTS = np.array([2, 1, 1, 0, 3])
WORDS = {"a": 5, "red": 9, "cat": 11, "dog": 7, "never": 1, "used": 2}


def prepare(texts):
    """Ids of words, with another id behind each end of a text."""
    longest = max(len(text.split()) for text in texts) + 1
    ids, mask = np.full((len(texts), longest), 99), np.zeros((len(texts), longest), bool)
    for row, text in enumerate(texts):
        found = [WORDS[word] for word in text.split()]
        ids[row, : len(found)], mask[row, : len(found)] = found, True
    return {"ids": ids, "mask": mask}


@pytest.fixture
def bags(monkeypatch):
    monkeypatch.setattr(subwords, "_TOKENISED_TOGETHER", 2)
    return subwords.bags_of(TEXTS, COUNTS, prepare)


def by_hand(texts, counts):
    """Weights of the words of each text, by the definition."""
    having = {w: sum(n for t, n in zip(texts, counts) if w in t.split()) for w in WORDS}
    kept = sorted((w for w in WORDS if having[w]), key=WORDS.get)
    idf = {w: max(math.log(sum(counts) / (1 + having[w])), 0) for w in kept}
    return kept, np.array([[idf[w] if w in t.split() else 0.0 for w in kept] for t in texts])


def test_bags_are_of_the_subwords_of_training_captions(bags):
    kept, expected = by_hand(TEXTS, COUNTS)
    assert bags.vocabulary.tolist() == [WORDS[w] for w in kept] == [5, 7, 9, 11]
    placed = {"classes": jnp.asarray(bags.classes), "idf": jnp.asarray(bags.idf)}
    ours = Subwords(weight=1.0).targets(placed, np.array([0, 1, 2, 4, 1]))
    np.testing.assert_allclose(ours, expected[[0, 1, 2, 4, 1]], rtol=1e-6)
    assert (bags.classes[3] == -1).all()


def test_the_bag_of_several_captions_is_of_all_and_of_no_negative(bags):
    _, expected = by_hand(TEXTS, COUNTS)
    placed = {"classes": jnp.asarray(bags.classes), "idf": jnp.asarray(bags.idf)}
    text = np.array([[0, 2, 4], [1, 1, 0]])  # Two captions and a negative one.
    ours = Subwords(weight=1.0, positives=2, hard=1).targets(placed, text)
    wanted = [np.maximum(expected[0], expected[2]), expected[1]]
    np.testing.assert_allclose(ours, wanted, rtol=1e-6)


@pytest.fixture
def made(model, rng):  # noqa: F811
    """Parameters, a layer that is not at zero, bags and a batch."""
    trainable = model.init_heads(0) | {"loss": {"log_scale": jnp.float32(2.0)}}
    frozen = {"statistics": {"center": jnp.zeros(WIDTH), "spread": jnp.ones(WIDTH)}}
    own = {
        "kernel": rng.normal(size=(WIDTH, 6)).astype("f"),
        "bias": rng.normal(size=6).astype("f"),
    }
    classes = np.sort(rng.integers(-1, 6, (PAIRS, 3)).astype(np.int32))[:, ::-1]
    bags = {"classes": classes.copy(), "idf": np.linspace(0.5, 2, 6, dtype="f")}
    batch = make_batch(16) | {"text": np.arange(PAIRS, dtype=np.int32)[::-1].copy()}
    return {**trainable, SUBWORDS: own}, {**frozen, SUBWORDS: bags}, batch


def dense(bags, text):
    """The weights of each text's classes, divided by their sum."""
    out = np.zeros((len(text), 6))
    for row, at in enumerate(text):
        for number in set(bags["classes"][at].tolist()) - {-1}:
            out[row, number] = bags["idf"][number]
    return out / np.maximum(out.sum(1, keepdims=True), 1e-12)


def by_torch(logits, shares):
    scores = torch.log_softmax(torch.tensor(np.asarray(logits, np.float64)), dim=1)
    return float(-(scores * torch.tensor(shares)).sum(dim=1).mean())


def image_head(model, trainable, batch):  # noqa: F811
    """What the image head gives, not at unit length."""
    return model.image.head.apply({"params": trainable["image_head"]}, batch["pooled"])


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("chunks", [1, 2])
def test_it_is_added_to_the_contrastive_loss(model, made, devices, chunks):  # noqa: F811
    trainable, frozen, batch = made
    mesh = None if devices == 1 else mesh_lib.make_mesh()
    if mesh is not None:
        batch = mesh_lib.place_batch(batch, mesh)
    program = jax.jit(
        lambda t, f, b, s: contrastive_loss(
            model, "softmax", mesh, t, f, b, chunks=chunks, subwords=s
        ),
        static_argnums=3,
    )
    plain, _ = program(trainable, frozen, batch, None)
    value, (_, metrics) = program(trainable, frozen, batch, Subwords(weight=3.0))
    trainable, frozen, batch = made
    z = image_head(model, trainable, batch)
    logits = np.asarray(z) @ trainable[SUBWORDS]["kernel"] + trainable[SUBWORDS]["bias"]
    term = by_torch(logits, dense(frozen[SUBWORDS], batch["text"]))
    np.testing.assert_allclose(metrics["subwords"], term, rtol=1e-5)
    np.testing.assert_allclose(metrics["contrastive"], plain, rtol=1e-5)
    np.testing.assert_allclose(value, float(plain) + 3 * term, rtol=1e-5)


def test_bags_of_mixed_pairs_are_mixed(model, made):  # noqa: F811
    trainable, frozen, batch = made
    latent, rng = Latent(mixup=1.0), jax.random.key(3)
    _, (_, metrics) = contrastive_loss(
        model, "softmax", None, trainable, frozen, batch, rng, latent, subwords=Subwords(weight=1.0)
    )
    weight = latent.weight(rng)
    z = image_head(model, trainable, {"pooled": mix(batch["pooled"], weight)})
    logits = np.asarray(z) @ trainable[SUBWORDS]["kernel"] + trainable[SUBWORDS]["bias"]
    shares = np.asarray(mix(jnp.asarray(dense(frozen[SUBWORDS], batch["text"])), weight))
    np.testing.assert_allclose(metrics["subwords"], by_torch(logits, shares), rtol=1e-5)


def test_the_layer_starts_where_every_subword_is_as_likely():
    made = subwords.layer(4, 7)
    assert {name: x.shape for name, x in made.items()} == {"kernel": (4, 7), "bias": (7,)}
    assert not any(x.any() for x in made.values())


def test_embeddings_can_be_asked_for_before_they_are_at_unit_length(model, made):  # noqa: F811
    trainable, frozen, batch = made
    features = model.image_features(frozen, batch)
    raw, unit = (model.align(trainable, frozen, features, unit=one)[0] for one in (False, True))
    np.testing.assert_allclose(heads.normalize(raw), unit, rtol=1e-6)
    assert not np.allclose(np.linalg.norm(raw, axis=1), 1, atol=0.01)
