"""Towers' features through the cache: what comes back is what the tower gives."""

import dataclasses

import jax
import ml_dtypes
import numpy as np
import pytest

from ape_jax import towers
from ape_jax.data.pairs import Pairs
from ape_jax.data.specs import open_pairs
from ape_jax.errors import UserError
from ape_jax.features import extract, jobs
from ape_jax.features.encode import FrozenTower
from ape_jax.features.fingerprint import Fingerprint
from ape_jax.images.augment import Augment
from ape_jax.images.decode import ImageRef
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.storage.rows import access

F32, BF16 = np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(jobs, "SHARD_VIEWS", 10)
    monkeypatch.setattr(jobs, "SHARD_CAPTIONS", 20)


@pytest.fixture(scope="module")
def towers_of(tiny):
    return {
        kind: towers.load(str(tiny / kind), kind=kind, dtype="float32")
        for kind in ("image", "text")
    }


@pytest.fixture
def frozen(towers_of):
    def make(kind, **settings):
        tower, mesh = towers_of[kind], mesh_lib.make_mesh()
        params = mesh_lib.place_frozen(tower.params, mesh, 256)
        return FrozenTower(tower=tower.tower, params=params, mesh=mesh, batch=8, **settings)

    return make


@pytest.fixture
def pairs(tiny):
    return open_pairs(str(tiny / "pairs.jsonl"))


@pytest.fixture
def place(tmp_path):
    return extract.Place(root=tmp_path / "features")


def image_job(frozen, pairs, dtype=F32, **settings):
    return jobs.ImageJob(what="images", pairs=pairs, frozen=frozen, dtype=dtype, **settings)


def caption_job(frozen, texts, dtype=F32):
    return jobs.CaptionJob(what="captions", texts=texts, spec="p", frozen=frozen, dtype=dtype)


TEXTS = tuple(
    f"{start} {colour} {shape}"
    for start in ("a", "the", "a picture of the")
    for colour in ("red", "green", "blue", "black")
    for shape in ("square", "circle", "triangle", "bar")
)


def test_images_of_the_cache_are_the_towers_own(frozen, pairs, place, towers_of):
    job = image_job(frozen("image", pooling="cls+mean"), pairs)
    features, seen = extract.images(job, place)
    assert features.shape == (24, 1, 64) and features.dtype == F32 and seen.all()
    tower = towers_of["image"]
    for i in (0, 9, 10, 23):  # On both sides of a shard's end.
        alone = tower(tower.prepare([pairs[i].image]), pooling="cls+mean").pooled[0]
        np.testing.assert_allclose(features[i : i + 1][0, 0], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_memory_and_disk_hold_the_same_bits(frozen, pairs, place, dtype):
    job = image_job(
        frozen("image", pooling="cls"), pairs, dtype, views=3, augment=Augment(flip=True)
    )
    on_disk, in_memory = extract.images(job, place), extract.images(job, extract.Place(root=None))
    assert on_disk[0].dtype == dtype and on_disk[0][:].tobytes() == in_memory[0].tobytes()
    texts = caption_job(frozen("text"), TEXTS, dtype)
    on_disk, in_memory = (extract.captions(texts, p) for p in (place, extract.Place(root=None)))
    assert on_disk.flat[:].tobytes() == in_memory.flat.tobytes()
    np.testing.assert_array_equal(on_disk.offsets, in_memory.offsets)


def test_bf16_is_the_rounded_f32(frozen, pairs, place):
    reader = frozen("image", pooling="cls")
    full, _ = extract.images(image_job(reader, pairs), place)
    half, _ = extract.images(image_job(reader, pairs, BF16), place)
    np.testing.assert_array_equal(half, full[:].astype(BF16))


def test_views_are_keyed_by_record_and_view_alone(frozen, pairs, place, monkeypatch):
    settings = {"views": 2, "augment": Augment(crop=(0.3, 1.0), flip=True), "seed": 3}
    reader = frozen("image", pooling="cls")
    features, _ = extract.images(image_job(reader, pairs, **settings), place)
    monkeypatch.setattr(jobs, "SHARD_VIEWS", 16)
    again, _ = extract.images(image_job(reader, pairs, **settings), place)
    features, again = features[:], again[:]
    np.testing.assert_allclose(again, features, rtol=1e-4, atol=1e-5)
    assert np.abs(features[:, 0] - features[:, 1]).max() > 1e-2
    other, _ = extract.images(image_job(reader, pairs, **{**settings, "seed": 4}), place)
    assert np.abs(other[:] - features).max() > 1e-2


def test_captions_of_the_cache_are_the_towers_own(frozen, place, towers_of):
    tokens = extract.captions(caption_job(frozen("text"), TEXTS), place)
    assert len(tokens) == len(TEXTS)
    tower = towers_of["text"]
    for i in (0, 19, 20, 47):
        batch = tower.prepare([TEXTS[i]])
        alone = np.asarray(tower(batch, pooling="none").tokens)[0][batch["mask"][0]]
        got = tokens.flat[tokens.offsets[i] : tokens.offsets[i + 1]]
        np.testing.assert_allclose(got, alone, rtol=1e-4, atol=1e-5)


def test_unreadable_images_are_empty_records_and_known_on_the_next_start(
    frozen, pairs, place, tmp_path
):
    (tmp_path / "bad.png").write_bytes(b"no image")
    bad = ImageRef(str(tmp_path / "bad.png"), "bad.png")
    chosen = {3, *range(10, 20)}  # One among others, and a whole shard.
    records = [dataclasses.replace(p, image=bad) if i in chosen else p for i, p in enumerate(pairs)]
    broken = Pairs.of(records, pairs.spec)
    reader = frozen("image", pooling="cls")
    whole, _ = extract.images(image_job(reader, pairs), place)
    for _ in range(2):
        features, seen = extract.images(image_job(reader, broken, on_error="skip"), place)
        assert set(np.flatnonzero(~seen)) == chosen
        np.testing.assert_allclose(features[:], whole[:][seen], rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match=r"bad\.png"):
        extract.images(image_job(reader, broken), place)


def test_tokens_below_an_appended_block_resume_as_the_whole_tower_does(
    frozen, pairs, place, towers_of
):
    features, _ = extract.images(image_job(frozen("image", layer=1), pairs), place)
    assert features.shape == (24, 1, 17, 32)
    tower = towers_of["image"]
    rest = tower.tower.resume(tower.params, features[:][:, 0], np.ones((24, 17), bool), start=1)
    whole = tower(tower.prepare([pair.image for pair in pairs]))
    np.testing.assert_allclose(rest.pooled, whole.pooled, rtol=1e-4, atol=1e-5)


def test_need_is_what_the_records_take(frozen, pairs, place):
    job = image_job(frozen("image", pooling="cls"), pairs, views=2, augment=Augment(flip=True))
    filled = extract.fill(job, place)
    assert job.need(filled.cache.blocks) == sum(s.payload for s in filled.cache.shards)
    texts = caption_job(frozen("text"), TEXTS, BF16)
    filled = extract.fill(texts, place)
    assert texts.need(filled.cache.blocks) == sum(s.payload for s in filled.cache.shards)


def test_loading_takes_little_more_memory_than_the_features(place):
    import tracemalloc

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Wide(jobs.CaptionJob):
        fingerprint = Fingerprint(kind="captions", tower="t", pairs="p", parts={})
        count, per_shard, width = 64, 8, 2048

        def need(self, blocks):
            return 0

        def encode(self, block, report):
            return [np.full((50, 2048), i, np.float32) for i in block]

    job = Wide(what="wide", texts=(), spec="p", frozen=None, dtype=F32)
    extract.fill(job, place)
    tracemalloc.start()
    tokens = extract.captions(job, place)
    opened = tracemalloc.get_traced_memory()[1]
    whole = tokens.flat.read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert whole[-1, 0] == 63 and len(tokens) == 64
    assert opened < 0.1 * whole.nbytes and peak < 1.1 * whole.nbytes


@pytest.mark.parametrize("on_disk", [True, False])
def test_one_cpu_device_takes_features_without_a_copy(frozen, pairs, place, on_disk):
    place = place if on_disk else extract.Place(root=None)
    pooled, _ = extract.images(image_job(frozen("image", pooling="cls"), pairs, BF16), place)
    tokens = extract.captions(caption_job(frozen("text"), TEXTS, BF16), place)
    arrays = access.in_memory(pooled), access.in_memory(tokens.flat)
    placed = mesh_lib.place_replicated(arrays, mesh_lib.make_mesh(1))
    for host, device in zip(arrays, placed, strict=True):
        assert device.unsafe_buffer_pointer() == host.ctypes.data


def test_all_devices_of_a_local_mesh_encode(frozen, pairs, place):
    reader = frozen("image", pooling="cls")
    local = dataclasses.replace(reader, mesh=mesh_lib.make_local_mesh())
    assert local.mesh.devices.size == len(jax.local_devices()) == 8
    ours, _ = extract.images(image_job(local, pairs), place)
    theirs, _ = extract.images(image_job(reader, pairs), extract.Place(root=None))
    assert ours[:].tobytes() == theirs.tobytes()
