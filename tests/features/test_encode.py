"""Encoding a whole set once equals encoding each item alone."""

import dataclasses
from unittest import mock

import numpy as np
import pytest

from ape_jax import towers
from ape_jax.data.image_loader import image_batches
from ape_jax.data.specs import open_pairs
from ape_jax.features import encode, extract
from ape_jax.features.jobs import CaptionJob, ImageJob
from ape_jax.nn import inference
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.towers.bound import BoundTower
from ape_jax.towers.tower import Tower


@pytest.fixture(scope="module")
def load(tiny):
    def load(kind, **options):
        return towers.load(str(tiny / kind), kind=kind, dtype="float32", **options)

    return load


def frozen(tower, **settings):
    mesh = mesh_lib.make_mesh()
    params = mesh_lib.place_frozen(tower.params, mesh, 256)
    return encode.FrozenTower(tower=tower.tower, params=params, mesh=mesh, **settings)


def test_images_of_every_view_lie_at_their_record(load, tiny):
    tower, pairs = load("image"), open_pairs(str(tiny / "pairs.jsonl"))
    reader = frozen(tower, pooling="cls+mean", batch=10)
    job = ImageJob(what="images", pairs=pairs, frozen=reader, dtype=np.dtype(np.float32), views=2)
    features, seen = extract.images(job, extract.Place(root=None))
    assert features.shape == (24, 2, 64) and seen.all() and reader.rows == 16
    for i in (0, 11, 23):
        alone = tower(tower.prepare([pairs[i].image]), pooling="cls+mean").pooled[0]
        np.testing.assert_allclose(features[i, 1], alone, rtol=1e-4, atol=1e-5)


def test_texts_come_back_in_their_order_without_padding(load):
    tower = load("text")
    texts = ["a red bar", "the picture of a blue square of the bar", "red", "a", "the red"]
    reader = frozen(tower, batch=8)
    job = CaptionJob(what="texts", texts=texts, spec="", frozen=reader, dtype=np.dtype(np.float32))
    tokens = extract.captions(job, extract.Place(root=None))
    assert len(tokens) == 5
    for i, text in enumerate(texts):
        batch = tower.prepare([text])
        alone = np.asarray(tower(batch, pooling="none").tokens)[0][batch["mask"][0]]
        got = tokens.flat[tokens.offsets[i] : tokens.offsets[i + 1]]
        np.testing.assert_allclose(got, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_texts_of_missing_blocks_are_read_a_block_at_a_time():
    asked: list[slice] = []

    class Texts(list):
        def __getitem__(self, i):
            asked.append(i)
            return super().__getitem__(i)

    class Counts:
        def token_counts(self, texts, what):
            blocks = [texts[start : start + 4] for start in range(0, len(texts), 4)]
            read = [text for block in blocks for text in block]
            assert read == [*texts] == [*"abcdfgj"]
            return np.array([ord(text) for text in read])

        def token_width(self):
            return 2

    job = CaptionJob(
        what="", texts=Texts("abcdefghij"), spec="", frozen=Counts(), dtype=np.dtype(np.float16)
    )
    blocks = [range(0, 4), range(5, 7), range(9, 10)]
    assert job.need(blocks) == 4 * sum(map(ord, "abcdfgj")) and job.need([]) == 0
    assert max(i.stop - i.start for i in asked) == 4


def one_device(tower, **settings):
    mesh = mesh_lib.make_mesh(1)
    params = mesh_lib.place_frozen(tower.params, mesh, 256)
    return encode.FrozenTower(tower=tower.tower, params=params, mesh=mesh, **settings)


@pytest.mark.parametrize("size", [112, 224])
def test_narrow_features_of_the_demo_tower_are_within_3e_3_of_float32(size):
    """Of the ninth block, CLS and mean of patches: what the demo trains on."""
    pairs = open_pairs("demo:twemoji:validation")
    features = {}
    for dtype in ("bfloat16", "float32"):
        tower = towers.load("demo:vit_s14", dtype=dtype, image_size=size)
        images = tower.prepare([pairs[i].image for i in range(0, 32, 4)])
        reader = one_device(tower, layer=9, pooling="cls+mean", batch=8)
        features[dtype] = np.asarray(reader(images).pooled)
    error = np.linalg.norm(features["bfloat16"] - features["float32"])
    assert error <= 3e-3 * np.linalg.norm(features["float32"])


def test_one_cpu_runs_the_tower_in_another_way_with_the_same_result(load, monkeypatch):
    monkeypatch.setattr(inference, "SLICE_TOKENS", 40)
    image, text = load("image"), load("text")
    pictures = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype(np.float32)
    batch = text.prepare(["a red bar", "the picture of a blue square of the bar", "red"] * 2)
    for tower, pooling, given in ((image, "cls+mean", {"image": pictures}), (text, "mean", batch)):
        reader = one_device(tower, pooling=pooling, batch=8)
        want = np.asarray(tower(given, pooling=pooling).pooled)
        got = np.asarray(reader(given).pooled)[: len(want)]
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_on_one_cpu_narrow_products_round_less(load, tiny):
    wide = load("image")
    narrow = towers.load(str(tiny / "image"), kind="image", dtype="bfloat16")
    pictures = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype(np.float32)
    want = np.asarray(wide({"image": pictures}, pooling="cls+mean").pooled)
    plain = np.asarray(narrow({"image": pictures}, pooling="cls+mean").pooled)
    reader = one_device(narrow, pooling="cls+mean", batch=8)
    got = np.asarray(reader({"image": pictures}).pooled)
    assert 0 < np.linalg.norm(got - want) < np.linalg.norm(plain - want)


def test_streamed_images_come_in_order_with_all_their_tokens(load, tiny):
    tower, pairs = load("image"), open_pairs(str(tiny / "pairs.jsonl"))
    reader = frozen(tower, pooling="none", batch=16)
    batches = image_batches(pairs, transform=tower.prepare.transform, views=2, batch=reader.rows)
    parts = list(reader.stream_images(batches))
    assert [out.shape for _, _, out in parts] == [(16, 17, 32)] * 3
    assert np.concatenate([index for index, _, _ in parts]).tolist() == [i // 2 for i in range(48)]
    assert np.concatenate([view for _, view, _ in parts]).tolist() == [0, 1] * 24
    alone = tower(tower.prepare([pairs[0].image]), pooling="none").tokens[0]
    np.testing.assert_allclose(parts[0][2][0], alone, rtol=1e-4, atol=1e-5)


def test_rows_that_only_fill_the_last_batch_are_not_streamed(load, tiny):
    tower, pairs = load("image"), open_pairs(str(tiny / "pairs.jsonl"))
    reader = frozen(tower, pooling="cls", batch=16)
    batches = image_batches(pairs, transform=tower.prepare.transform, batch=reader.rows)
    sizes = [len(out) for _, _, out in reader.stream_images(batches)]
    assert sizes == [16, 8]


def test_streamed_texts_are_tokenised_once_and_come_longest_first(load):
    tower, calls = load("text"), []
    original = tower.prepare.encode
    counted = dataclasses.replace(
        tower.prepare, encode=lambda texts: calls.extend(texts) or original(texts)
    )
    tower = BoundTower(dataclasses.replace(tower.tower, prepare=counted), tower.params)
    texts = ["a red bar of the bar", "red", "the red bar"] * 7
    parts = list(frozen(tower, batch=8).stream_texts(texts))
    places = [int(i) for chosen, _ in parts for i in chosen]
    lengths = [len(row) for _, rows in parts for row in rows]
    assert calls == texts
    assert sorted(places) == list(range(21))
    assert lengths == [8] * 7 + [5] * 7 + [3] * 7
    assert [len(texts[i].split()) + 2 for i in places] == lengths


def test_no_texts_give_nothing(load):
    assert list(frozen(load("text")).stream_texts([])) == []


@pytest.mark.parametrize(("body", "padded"), [(1, 4), (4, 6), (5, 8), (13, 16), (40, 16)])
def test_short_texts_are_padded_little_and_none_beyond_the_tower(load, body, padded):
    assert encode.padded_length(load("text").tower, body) == padded


def test_later_batches_are_started_before_an_earlier_one_is_handed_out():
    started = []
    for item in encode._ahead(map(lambda i: started.append(i) or i, range(5))):
        assert len(started) == min(item + 1 + encode._AHEAD, 5)
    assert started == list(range(5))


def test_texts_of_one_length_share_a_shape_and_short_ones_a_batch(load):
    lengths = np.random.default_rng(0).permutation(np.repeat([2, 6, 14], [700, 300, 100]))
    batches = list(encode.text_batches(frozen(load("text"), batch=16), lengths))
    assert sorted(np.concatenate([batch.index for batch in batches])) == list(range(1100))
    for batch in batches:
        assert len(batch.index) <= batch.rows
        assert lengths[batch.index].max() + 2 <= batch.length
    shapes = [(batch.rows, batch.length) for batch in batches]
    assert set(shapes[:-1]) == {(32, 16), (64, 8), (128, 4)}
    assert shapes[-1] in {(16, 4), (32, 4), (64, 4), (128, 4)}


def test_a_large_tower_on_a_cpu_encodes_little_padding(load, monkeypatch):
    lengths = np.clip(np.random.default_rng(0).lognormal(2.25, 0.5, 256), 2, 14).astype(int)
    reader = frozen(load("text"), batch=64)
    assert not reader.is_costly

    def padded(reader):
        batches = list(encode.text_batches(reader, lengths))
        assert sorted(np.concatenate([batch.index for batch in batches])) == list(range(256))
        assert all(len(batch.index) <= batch.rows >= 16 for batch in batches)
        return sum(batch.rows * batch.length for batch in batches) / (lengths + 2).sum()

    plain = padded(reader)
    monkeypatch.setattr(encode, "_COSTLY", 1)
    monkeypatch.setattr(encode.FrozenTower, "_on_one_cpu", True)
    large = frozen(load("text"), batch=64)
    assert large.is_costly and padded(large) < 1.2 < plain


def test_texts_of_a_tower_that_attends_to_padding_are_as_long_as_it_takes():
    prepare = mock.Mock(fills=True, max_length=64, special=1)
    tower = mock.Mock(spec=Tower, prepare=prepare)
    assert encode.padded_length(tower, 3) == 64
    prepare.fills = False
    assert encode.padded_length(tower, 3) == 4


def test_fewer_long_texts_are_encoded_together():
    """So that the logits of attention take no more memory than those of texts of 512 tokens."""
    prepare = mock.Mock(fills=False, max_length=8192, special=0)
    tower = mock.Mock(spec=Tower, prepare=prepare)
    reader = encode.FrozenTower(tower=tower, params={}, mesh=mesh_lib.make_mesh(1), batch=64)
    batches = list(encode.text_batches(reader, np.array([8192, 4096, 1024, 512, 512])))
    assert [(b.length, b.rows) for b in batches] == [(8192, 1), (4096, 1), (1024, 16)]
    assert next(encode.text_batches(reader, np.array([512]))).rows == 64
