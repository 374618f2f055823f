"""Encoding a whole set once equals encoding each item alone."""

import numpy as np
import pytest

from ape_jax import towers
from ape_jax.data.pairs import open_pairs
from ape_jax.data.pipeline import image_batches
from ape_jax.features import encode, store
from ape_jax.parallel import mesh as mesh_lib


@pytest.fixture(scope="module")
def load(tiny):
    def load(kind, **options):
        return towers.load(str(tiny / kind), kind=kind, dtype="float32", **options)

    return load


def frozen(tower, **settings):
    mesh = mesh_lib.make_mesh()
    params = mesh_lib.place_frozen(tower.params, mesh, 256)
    return encode.FrozenTower(tower=tower, params=params, mesh=mesh, **settings)


def test_images_of_every_view_lie_at_their_record(load, tiny):
    tower, pairs = load("image"), open_pairs(str(tiny / "pairs.jsonl"))
    reader = frozen(tower, pooling="cls+mean", batch=10)
    batches = image_batches(pairs, transform=tower.prepare.transform, views=2, batch=reader.rows)
    features, seen = encode.encode_images(reader, batches, len(pairs), 2, "images")
    assert features.shape == (24, 2, 64) and seen.all() and reader.rows == 16
    for i in (0, 11, 23):
        alone = tower(tower.prepare([pairs[i].image]), pooling="cls+mean").pooled[0]
        np.testing.assert_allclose(features[i, 1], alone, rtol=1e-4, atol=1e-5)


def test_texts_come_back_in_their_order_without_padding(load):
    tower = load("text")
    texts = ["a red bar", "the picture of a blue square of the bar", "red", "a", "the red"]
    tokens = encode.encode_texts(frozen(tower, batch=8), texts, "texts")
    assert len(tokens) == 5
    for i, text in enumerate(texts):
        batch = tower.prepare([text])
        alone = np.asarray(tower(batch, pooling="none").tokens)[0][batch["mask"][0]]
        got = tokens.flat[tokens.offsets[i] : tokens.offsets[i + 1]]
        np.testing.assert_allclose(got, alone, rtol=1e-4, atol=1e-5)


def test_key_tells_towers_apart_by_all_that_changes_their_features(load):
    text, image = load("text"), load("image")
    keys = [
        store.tower_key(frozen(text)),
        store.tower_key(frozen(text, layer=1)),
        store.tower_key(frozen(load("text", prefix="the "))),
        store.tower_key(frozen(load("text", max_length=8))),
        store.tower_key(frozen(image, pooling="cls")),
        store.tower_key(frozen(image, pooling="mean")),
        store.tower_key(frozen(load("image", image_size=24), pooling="cls")),
    ]
    assert len(set(keys)) == len(keys)
    assert store.tower_key(frozen(load("text"))) == keys[0]


def test_store_makes_a_thing_once():
    kept, made = store.FeatureStore(), []
    for _ in range(3):
        kept.get("key", lambda: made.append(1) or 7)
    assert kept.get("key", lambda: 8) == 7 and made == [1]
