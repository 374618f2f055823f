"""Bring your own features: every form gives the same pairs, and what is wrong is one sentence."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ape_jax.data import open_labelled, open_pairs
from ape_jax.data.formats.features import open_vectors
from ape_jax.data.vectors import VectorPairs
from ape_jax.errors import UserError


def _arrays(rng, n=6, d=4, e=3):
    return rng.normal(size=(n, d)).astype(np.float32), rng.normal(size=(n, e)).astype(np.float32)


def _save(folder, image, text):
    np.save(folder / "image.npy", image)
    np.save(folder / "text.npy", text)
    return f"features:{folder}/image.npy,{folder}/text.npy"


def test_two_arrays_are_pairs_row_by_row(tmp_path, rng):
    image, text = _arrays(rng)
    pairs = open_vectors(_save(tmp_path, image, text))
    assert len(pairs) == pairs.num_captions == 6
    np.testing.assert_array_equal(pairs.image[:][:, 0], image)
    np.testing.assert_array_equal(pairs.text.flat[:], text)
    np.testing.assert_array_equal(pairs.text.offsets, np.arange(7))


def test_an_archive_holds_ragged_tokens_and_several_captions_an_image(tmp_path, rng):
    image, text = rng.normal(size=(2, 5, 4)), rng.normal(size=(6, 3))
    arrays = {"image": image, "text": text, "text_offsets": [0, 1, 4, 6], "owner": [0, 0, 1]}
    np.savez(tmp_path / "x.npz", **arrays)
    pairs = open_vectors(f"features:{tmp_path}/x.npz")
    assert pairs.image.shape == (2, 5, 4) and pairs.image.dtype == np.float32
    assert [len(pair.captions) for pair in pairs] == [2, 1]
    np.testing.assert_array_equal(pairs.text.offsets, [0, 1, 4, 6])


def test_dense_tokens_are_rows_of_one_length(tmp_path, rng):
    image, _ = _arrays(rng)
    pairs = open_vectors(_save(tmp_path, image, rng.normal(size=(6, 2, 3))))
    np.testing.assert_array_equal(pairs.text.offsets, np.arange(0, 13, 2))


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 2)])
def test_parquet_joins_rows_of_one_id(tmp_path, kind):
    image = pa.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]], kind)
    text = [[[1.0] * 3], [[2.0] * 3, [3.0] * 3], [[4.0] * 3]]
    table = pa.table({"image": image, "text": text, "id": ["a", "b", "a"]})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=2)
    pairs = open_vectors(f"features:{tmp_path}/x.parquet")
    assert [pair.id for pair in pairs] == ["a", "b"]
    np.testing.assert_array_equal(pairs.image[:, 0], [[1, 2], [3, 4]])
    # Captions follow their images: a's two, then b's.
    np.testing.assert_array_equal(pairs.text.flat[:, 0], [1, 4, 2, 3])
    np.testing.assert_array_equal(pairs.text.offsets, [0, 1, 2, 4])


def test_parquet_may_hold_words_for_a_text_tower(tmp_path):
    table = pa.table({"image": [[1.0, 2.0], [3.0, 4.0]], "caption": ["a cat", " ein Hund "]})
    pq.write_table(table, tmp_path / "x.parquet")
    pairs = open_vectors(f"features:{tmp_path}/x.parquet")
    assert pairs.text is None
    assert [pair.captions for pair in pairs] == [("a cat",), ("ein Hund",)]


def test_the_digest_follows_the_vectors(tmp_path, rng):
    image, text = _arrays(rng)
    spec = _save(tmp_path, image, text)
    first = open_vectors(spec).digest
    assert open_vectors(spec).digest == first
    text[3, 1] += 1
    _save(tmp_path, image, text)
    assert open_vectors(spec).digest != first


@pytest.mark.parametrize(
    ("image", "text", "words"),
    [
        (np.ones((3, 2)), np.ones((4, 2)), "3 rows of 'image' but 4"),
        (np.ones((3, 2), int), np.ones((3, 2)), "floating point"),
        (np.ones((3, 2)), np.ones((3, 2), "<U3"), "floating point"),
        (np.ones(3), np.ones((3, 2)), "\\[n, d\\]"),
        (np.ones((3, 2)), np.ones(3), "\\[m, d\\]"),
        (np.zeros((0, 2)), np.zeros((0, 2)), "\\[n, d\\]"),
        (np.full((3, 2), np.nan), np.ones((3, 2)), "row 0 of 'image' is not finite"),
        (np.ones((3, 2)), np.array([[1, 1], [1, np.inf], [1, 1.0]]), "row 1 of 'text'"),
    ],
)
def test_wrong_arrays_are_one_sentence(tmp_path, image, text, words):
    with pytest.raises(UserError, match=words):
        open_vectors(_save(tmp_path, image, text), key="data.pairs")


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"text_offsets": [0, 2, 2, 3]}, "at least one row"),
        ({"text_offsets": [0, 1, 2, 4]}, "from 0 to 3"),
        ({"text_offsets": [0.0, 1.0, 2.0, 3.0]}, "integer text_offsets"),
        ({"owner": [0, 2, 1]}, "ascending"),
        ({"owner": [0, 0, 1]}, "at least once"),
        ({"captions": [0, 0, 1]}, "holds 'captions', 'image', 'text'"),
    ],
)
def test_wrong_archives_are_one_sentence(tmp_path, extra, words):
    np.savez(tmp_path / "x.npz", image=np.ones((3, 2)), text=np.ones((3, 2)), **extra)
    with pytest.raises(UserError, match=words):
        open_vectors(f"features:{tmp_path}/x.npz")


def test_an_archive_with_objects_is_not_unpickled(tmp_path):
    np.savez(tmp_path / "x.npz", image=np.array([{}], object), text=np.ones((1, 2)))
    with pytest.raises(UserError, match="plain arrays"):
        open_vectors(f"features:{tmp_path}/x.npz")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"image": [[1.0], [1.0]]}, "write 'image' and one of"),
        ({"image": [1.0, 2.0], "text": [[1.0], [1.0]]}, "lists of numbers"),
        ({"image": [[1.0, 2.0], [1.0]], "text": [[1.0], [1.0]]}, r"\[1, 2\] wide"),
        ({"image": [[1.0], None], "text": [[1.0], [1.0]]}, "nulls"),
        ({"image": [[1.0], [1.0]], "text": [[[1.0]], []]}, "one or more vectors"),
        ({"image": [["a"], ["b"]], "text": [[1.0], [1.0]]}, "floating point"),
        ({"image": [[1.0], [2.0]], "text": [[1.0], [1.0]], "id": ["a", "a"]}, "another vector"),
        ({"image": [[1.0], [2.0]], "caption": ["x", " "]}, "empty"),
    ],
)
def test_wrong_tables_are_one_sentence(tmp_path, table, words):
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=words):
        open_vectors(f"features:{tmp_path}/x.parquet")


@pytest.mark.parametrize("path", ["none.npz", "none.parquet", "a.npy,b.npy", "x.txt", "a.npy"])
def test_missing_and_unknown_files_are_one_sentence(tmp_path, path):
    with pytest.raises(UserError, match=r"no file|no known form"):
        open_vectors(f"features:{path}")


@pytest.mark.parametrize("name", ["x.npz", "x.parquet"])
def test_damaged_files_are_one_sentence(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04 this is neither")
    with pytest.raises(UserError, match=r"cannot be read|not a readable"):
        open_vectors(f"features:{tmp_path}/{name}")


def test_pairs_of_vectors_are_opened_as_any_others(tmp_path, rng):
    spec = _save(tmp_path, rng.normal(size=(2, 3)), rng.normal(size=(2, 3)))
    assert isinstance(open_pairs(spec), VectorPairs)
    with pytest.raises(UserError, match=r"^data.labelled: .* no images with 'label'"):
        open_labelled(spec)
