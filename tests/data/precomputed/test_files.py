"""Own features stay in their files: every type, order and place of rows gives what NumPy reads."""

import hashlib

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ape_jax.data.formats.features import open_vectors
from ape_jax.data.precomputed import parquet, verified
from ape_jax.errors import UserError
from ape_jax.recipes import few_pairs
from ape_jax.storage.rows.mapped import MappedRows


def save(folder, image, text):
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "image.npy", image)
    np.save(folder / "text.npy", text)
    return f"features:{folder}/image.npy,{folder}/text.npy"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("kind", ["<f2", "<f4", ">f4", "<f8"])
def test_types_are_read_as_f32_by_rows(tmp_path, rng, kind):
    image, text = rng.normal(size=(5, 4)).astype(kind), rng.normal(size=(5, 2, 3)).astype(kind)
    pairs = open_vectors(save(tmp_path, image, text))
    assert isinstance(pairs.image, MappedRows) and pairs.image.dtype == np.float32
    np.testing.assert_array_equal(pairs.image[:][:, 0], image.astype(np.float32))
    expected = text.reshape(10, 3).astype(np.float32)
    np.testing.assert_array_equal(pairs.text.flat[np.array([9, 2])], expected[[9, 2]])


def test_two_bytes_without_a_type_are_bfloat16_which_is_said(tmp_path, rng, capsys):
    image = rng.normal(size=(5, 4)).astype(ml_dtypes.bfloat16)
    pairs = open_vectors(save(tmp_path, image, image))
    assert pairs.image.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(pairs.image[:][:, 0], image)
    assert "taken as bfloat16" in capsys.readouterr().err


def test_columns_end_to_end_are_turned(tmp_path, rng):
    image = np.asfortranarray(rng.normal(size=(5, 4)).astype(np.float32))
    pairs = open_vectors(save(tmp_path, image, image))
    np.testing.assert_array_equal(pairs.image[:][:, 0], image)


def test_paths_may_hold_commas_and_braces_in_a_recipe(tmp_path, rng):
    image = rng.normal(size=(5, 4)).astype(np.float32)
    spec = save(tmp_path / "a,b {1,2}", image, image)
    config = few_pairs.get_config(f"image=features:4,pairs={spec},text=features:4")
    assert config.data.pairs == spec
    np.testing.assert_array_equal(open_vectors(spec).image[:][:, 0], image)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_members_of_archives_are_read_or_mapped(tmp_path, rng, write):
    arrays = {"image": rng.normal(size=(3, 5)), "text": rng.normal(size=(6, 4)).astype("f4")}
    arrays |= {"text_offsets": np.array([0, 1, 3, 4, 6]), "owner": np.array([0, 1, 1, 2])}
    write(tmp_path / "x.npz", **arrays)
    pairs = open_vectors(f"features:{tmp_path}/x.npz")
    assert isinstance(pairs.image, MappedRows) == (write is np.savez)
    np.testing.assert_array_equal(pairs.image[:][:, 0], arrays["image"].astype("f4"))
    np.testing.assert_array_equal(pairs.text.flat[1:5], arrays["text"][1:5])
    assert [len(pair.captions) for pair in pairs] == [1, 2, 1]
    assert pairs[1].captions == ("vectors 1", "vectors 2") and pairs[2].id == "2"


@pytest.mark.parametrize("counted_from", ["each", "all"])
def test_a_folder_of_shards_is_its_arrays_end_to_end(tmp_path, rng, counted_from):
    images, texts = ([rng.normal(size=(n, 4)).astype("f4") for n in ns] for ns in ((2, 3), (5, 7)))
    offsets = [np.array([0, 1, 3, 5]), np.array([0, 2, 3, 4, 7])]
    owners = [np.array([0, 0, 1]), np.array([0, 1, 1, 2]) + (2 if counted_from == "all" else 0)]
    for k in range(2):
        np.save(tmp_path / f"image-{k:05}.npy", images[k])
        np.save(tmp_path / f"text-{k:05}.npy", texts[k])
        np.save(tmp_path / f"text_offsets-{k:05}.npy", offsets[k])
        np.save(tmp_path / f"owner-{k:05}.npy", owners[k])
    pairs = open_vectors(f"features:{tmp_path}")
    np.testing.assert_array_equal(pairs.image[:][:, 0], np.concatenate(images))
    np.testing.assert_array_equal(pairs.text.flat[:], np.concatenate(texts))
    np.testing.assert_array_equal(pairs.text.offsets, [0, 1, 3, 5, 7, 8, 9, 12])
    assert [len(pair.captions) for pair in pairs] == [2, 1, 1, 2, 1]


def test_shards_go_by_number_and_other_files_are_named(tmp_path, capsys):
    for k in range(11):
        np.save(tmp_path / f"image-{k}.npy", np.full((1, 2), k, np.float32))
        np.save(tmp_path / f"text-{k}.npy", np.full((1, 2), k, np.float32))
    (tmp_path / "notes.txt").write_text("x")
    pairs = open_vectors(f"features:{tmp_path}")
    np.testing.assert_array_equal(pairs.image[:][:, 0, 0], np.arange(11))
    assert "notes.txt left out" in capsys.readouterr().err


def tables(rng, rows=40, ids=12):
    """Shuffled rows of a table: several captions an image, tokens of different lengths."""
    vectors = rng.normal(size=(ids, 2, 3)).astype("f4")
    owner = rng.integers(0, ids, rows)
    text = [rng.normal(size=(int(rng.integers(1, 4)), 5)).astype("f4") for _ in range(rows)]
    table = pa.table(
        {
            "image": [vectors[i].tolist() for i in owner],
            "text": [t.tolist() for t in text],
            "id": [f"i{i}" for i in owner],
        }
    )
    return table, vectors, text


@pytest.mark.parametrize("small", [True, False])
def test_parquet_is_written_once_as_mapped_files(tmp_path, rng, cache, small, monkeypatch, capsys):
    """pandas' grouping by first appearance is the reference."""
    table, vectors, text = tables(rng)
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=7)
    monkeypatch.setattr(parquet, "_SMALL", 2**26 if small else 0)
    monkeypatch.setattr("ape_jax.data.precomputed.source._BATCH", 60)
    frame = table.select(["id"]).to_pandas()
    names = list(dict.fromkeys(frame["id"]))
    for start in range(2):
        pairs = open_vectors(f"features:{tmp_path}/x.parquet")
        assert [pair.id for pair in pairs] == names
        expected = np.stack([vectors[int(name[1:])] for name in names])
        np.testing.assert_array_equal(pairs.image[:], expected)
        order = [k for name in names for k in np.flatnonzero(frame["id"] == name)]
        np.testing.assert_array_equal(pairs.text.flat[:], np.concatenate([text[k] for k in order]))
        np.testing.assert_array_equal(np.diff(pairs.text.offsets), [len(text[k]) for k in order])
        assert ("written once" in capsys.readouterr().err) == (not small and start == 0)
    assert isinstance(pairs.image, MappedRows) != small


def test_parquet_that_has_changed_is_written_anew(tmp_path, rng, cache, monkeypatch):
    monkeypatch.setattr(parquet, "_SMALL", 0)
    for count in (3, 4):
        table = pa.table({"image": [[1.0, 2.0]] * count, "caption": ["a cat"] * count})
        pq.write_table(table, tmp_path / "x.parquet")
        assert len(open_vectors(f"features:{tmp_path}/x.parquet")) == count
    assert len([path for path in (cache / "vectors").iterdir() if path.is_dir()]) == 1


@pytest.mark.parametrize("name", ["image", "text", "offsets", "owner", "meta.json"])
def test_vectors_of_parquet_with_a_flipped_bit_are_written_anew(
    tmp_path, rng, cache, name, monkeypatch, capsys
):
    monkeypatch.setattr(parquet, "_SMALL", 0)
    table, *_ = tables(rng)
    pq.write_table(table, tmp_path / "x.parquet")
    first = open_vectors(f"features:{tmp_path}/x.parquet")
    before = [np.array(first.image[:]), np.array(first.text.flat[:]), first.text.offsets]
    (file,) = cache.glob(f"vectors/*/{name}")
    whole = file.read_bytes()
    file.write_bytes(whole[:20] + bytes([whole[20] ^ 1]) + whole[21:])
    again = open_vectors(f"features:{tmp_path}/x.parquet")
    for a, b in zip(before, [again.image[:], again.text.flat[:], again.text.offsets]):
        np.testing.assert_array_equal(a, b)
    said = capsys.readouterr().err
    assert name == "meta.json" or said.count(f"{name} is damaged; the vectors of") == 1


def test_the_digest_is_that_of_ids_captions_and_values_in_f32(tmp_path, rng):
    """As it was before arrays were mapped: work directories name their pairs by it."""
    image, text = rng.normal(size=(3, 4)), rng.normal(size=(3, 2, 5)).astype(np.float32)
    pairs = open_vectors(save(tmp_path, image, text))
    total = hashlib.sha256(b"ape_jax vectors 1")
    for k in range(3):
        for part in (str(k), f"vectors {k}"):
            total.update(len(part).to_bytes(8, "little") + part.encode())
    for array in (image.astype("f4")[:, None], text.reshape(6, 5), np.arange(0, 7, 2)):
        total.update(repr((array.shape, array.dtype.str)).encode())
        total.update(array.tobytes())
    assert pairs.digest == total.hexdigest()


def test_files_that_stay_the_same_are_looked_at_once(tmp_path, rng, cache, monkeypatch):
    monkeypatch.setattr(verified, "_SMALL", 0)
    monkeypatch.setattr(verified, "_SETTLED", -1e9)
    image = rng.normal(size=(5, 4)).astype(np.float32)
    spec = save(tmp_path, image, image)
    first = open_vectors(spec).digest
    with monkeypatch.context() as patch:
        patch.setattr(verified, "is_finite", None)  # Nothing is read.
        assert open_vectors(spec).digest == first
    image[4, 3] = np.nan
    save(tmp_path, image, image)
    with pytest.raises(UserError, match="row 4 of 'image' is not finite"):
        open_vectors(spec)
    (record,) = (cache / "vectors").glob("*.json")
    record.write_bytes(record.read_bytes()[:-5])
    save(tmp_path, image[:4], image[:4])
    assert len(open_vectors(spec)) == 4


def test_what_has_just_been_written_is_looked_at_again(tmp_path, rng, cache, monkeypatch):
    """It may be written once more within one tick of the file system's clock."""
    monkeypatch.setattr(verified, "_SMALL", 0)
    open_vectors(save(tmp_path, np.ones((2, 2)), np.ones((2, 2))))
    assert not (cache / "vectors").exists()
