"""Damaged and hostile files of features: one sentence each, and little memory before it."""

import io
import struct
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ape_jax.data.formats.features import open_vectors
from ape_jax.errors import UserError

GOOD = np.ones((4, 3), np.float32)


def npy(header: str | bytes, content: bytes = b"", version=(1, 0), length=None) -> bytes:
    """A .npy file with any header."""
    text = header.encode() if isinstance(header, str) else header
    text = text.ljust(-(-(len(text) + 11) // 64) * 64 - 11) + b"\n"
    size = len(text) if length is None else length
    packed = struct.pack("<H" if version[0] == 1 else "<I", size)
    return b"\x93NUMPY" + bytes(version) + packed + text + content


def described(shape: str, descr: str = "'<f4'", fortran: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


FILES = {
    "empty": (b"", "cannot be read as plain arrays"),
    "no magic": (b"hello, I am text\n" * 9, "magic"),
    "magic alone": (b"\x93NUMPY\x01\x00", "cannot be read"),
    "cut in the header": (npy(described("(4, 3)"))[:40], "cannot be read"),
    "cut in the rows": (npy(described("(4, 3)"), b"\0" * 40), "48 bytes, but holds 40"),
    "absurd shape": (npy(described("(1000000000000, 384)"), b"\0" * 48), "cut short or is damaged"),
    "more than 64 bits": (npy(described(f"({2**70}, 3)"), b"\0" * 48), "cut short or is damaged"),
    "negative": (npy(described("(-4, -3)"), b"\0" * 48), "its shape is"),
    "truth as a size": (npy(described("(True, 3)"), b"\0" * 12), "its shape is"),
    "no tuple": (npy(described("4"), b"\0" * 48), "shape"),
    "floats as a shape": (npy(described("(4.0, 3.0)"), b"\0" * 48), "shape"),
    "scalar": (npy(described("()"), b"\0" * 4), r"'image' is \[\]"),
    "no rows": (npy(described("(0, 3)")), r"'image' is \[0, 3\]"),
    "five axes": (npy(described("(4, 1, 1, 1, 3)"), b"\0" * 48), r"'image' is \[4, 1, 1, 1, 3\]"),
    "objects": (npy(described("(4, 3)", "'|O'"), b"\x80\x04."), "Python objects"),
    "fields": (npy(described("(4,)", "[('a', '<f4'), ('b', '<f4')]"), b"\0" * 32), "fields"),
    "text": (npy(described("(4, 3)", "'<U2'"), b"\0" * 96), "floating point"),
    "complex": (npy(described("(4, 3)", "'<c8'"), b"\0" * 96), "floating point"),
    "integers": (npy(described("(4, 3)", "'<i4'"), b"\0" * 48), "floating point"),
    "eight bits without a type": (npy(described("(4, 3)", "'|V1'"), b"\0" * 12), "floating point"),
    "unknown type": (npy(described("(4, 3)", "'<q99'"), b"\0" * 48), "cannot be read"),
    "code in the header": (npy("__import__('os').system('true')"), "cannot be read"),
    "deep nesting": (npy("(" * 9000), "cannot be read"),
    "long header": (npy(described("(4, 3)"), version=(2, 0), length=2**32 - 1), "a header of"),
    "version 3": (npy(described("(4, 3)"), b"\0" * 48, version=(3, 0)), "version"),
    "version 9": (npy(described("(4, 3)"), b"\0" * 48, version=(9, 9)), "version"),
    "not UTF-8": (npy(b"{'descr': '\xff\xfe'}"), "cannot be read"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_bad_npy_file_is_one_sentence(tmp_path, name):
    content, words = FILES[name]
    (tmp_path / "image.npy").write_bytes(content)
    np.save(tmp_path / "text.npy", GOOD)
    said(f"features:{tmp_path}/image.npy,{tmp_path}/text.npy", words)


def said(spec: str, words: str) -> None:
    """One line that names the key, after less than 64 MB."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=words) as caught:
            open_vectors(spec, key="data.pairs")
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_last_value_of_the_last_row_is_looked_at(tmp_path, kind, value):
    bad = GOOD.astype(kind)
    bad[-1, -1] = value
    np.save(tmp_path / "image.npy", GOOD)
    np.save(tmp_path / "text.npy", bad)
    spec = f"features:{tmp_path}/image.npy,{tmp_path}/text.npy"
    said(spec, "data.pairs: .* row 3 of 'text' is not finite")


def test_numbers_beyond_f32_are_not_finite(tmp_path):
    np.save(tmp_path / "image.npy", np.array([[1.0], [1e300]]))
    np.save(tmp_path / "text.npy", np.ones((2, 1)))
    said(f"features:{tmp_path}/image.npy,{tmp_path}/text.npy", "row 1 of 'image' is not finite")


def archive(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            if isinstance(content, np.ndarray):
                buffer = io.BytesIO()
                np.save(buffer, content)
                content = buffer.getvalue()
            file.writestr(name, content)
    return f"features:{path}"


def test_an_archive_that_would_fill_the_memory_is_refused_before_it_does(tmp_path, monkeypatch):
    """A thousand times smaller than what is in it, as hostile ones are."""
    monkeypatch.setattr("ape_jax.data.precomputed.npz._LARGE", 2**22)
    header = npy(described("(10000000, 1)"))
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as file:
        with file.open("image.npy", "w", force_zip64=True) as member:
            member.write(header)
            member.write(bytes(40_000_000))
        file.writestr("text.npy", npy(described("(1, 1)"), b"\0" * 4))
    said(f"features:{tmp_path}/x.npz", "grows from .* bytes to 40,000,... when it is unpacked")


def test_an_archive_that_does_not_fit_is_one_sentence(tmp_path, rng, monkeypatch):
    monkeypatch.setattr("ape_jax.data.precomputed.opened._MOST_UNPACKED", 1000)
    spec = archive(tmp_path / "x.npz", {"image.npy": GOOD, "text.npy": rng.normal(size=(4, 99))})
    said(spec, "is compressed and would take .* numpy.savez")


def test_a_member_that_is_shorter_than_it_says_is_one_sentence(tmp_path):
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        content = npy(described("(1000000000, 384)"), b"\0" * 99)
        spec = archive(tmp_path / "x.npz", {"image.npy": content, "text.npy": GOOD}, kind)
        said(spec, "'image.npy' is shorter than its header")


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"image.npy": GOOD}, "holds 'image'; write"),
        ({"image.npy": GOOD, "text.npy": GOOD, "code.py": b"x"}, "holds 'code.py', 'image'"),
        ({"image.npy": b"abc", "text.npy": GOOD}, "cannot be read"),
        ({"image.npy": GOOD, "text.npy": GOOD, "owner.npy": GOOD}, "'owner' must name"),
        ({"image.npy": GOOD, "text.npy": GOOD, "text_offsets.npy": np.arange(9)}, "rise from 0"),
        (
            {"image.npy": GOOD, "text.npy": GOOD, "text_offsets.npy": np.array([0, 4, 2, 3, 4])},
            "must rise from 0 to 4",
        ),
        (
            {"image.npy": GOOD, "text.npy": GOOD, "text_offsets.npy": np.array([2**63 - 1] * 5)},
            "must rise from 0 to 4",
        ),
    ],
)
def test_a_bad_archive_is_one_sentence(tmp_path, members, words):
    said(archive(tmp_path / "x.npz", members), words)


def test_an_archive_with_two_members_of_a_name_is_one_sentence(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
            for name in ("image.npy", "image.npy", "text.npy"):
                file.writestr(name, npy(described("(1, 1)"), b"\0" * 4))
    said(f"features:{tmp_path}/x.npz", "two members have the same name")


def test_a_damaged_archive_is_one_sentence(tmp_path, rng):
    whole = tmp_path / "x.npz"
    np.savez_compressed(whole, image=rng.normal(size=(50, 9)), text=rng.normal(size=(50, 9)))
    content = bytearray(whole.read_bytes())
    content[300:340] = bytes(40)
    whole.write_bytes(content)
    said(f"features:{whole}", "cannot be read as plain arrays")
    whole.write_bytes(content[:-80])
    said(f"features:{whole}", "cannot be read as plain arrays")


def shards(folder, **files):
    for name, values in files.items():
        np.save(folder / f"{name.replace('_', '-')}.npy", values)
    return f"features:{folder}"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "holds none of the arrays 'image' and 'text'"),
        ({"image_0": GOOD}, "holds 'image' of the arrays"),
        ({"image_0": GOOD, "image_2": GOOD, "text_0": GOOD, "text_2": GOOD}, "number 1; add"),
        ({"image_5": GOOD, "text_5": GOOD}, "number 0; add"),
        ({"image_0": GOOD, "image_1": GOOD, "text_0": GOOD}, "holds 'image-1.npy' but no 'text'"),
        ({"image_1": GOOD, "image_01": GOOD, "text_1": GOOD}, "the same number twice"),
        ({"image_0_of_3": GOOD, "image_1_of_3": GOOD, "text_0": GOOD}, "number 2; add"),
        ({"image_0": GOOD, "text_0": GOOD[:3]}, "4 rows of 'image' but 3 of 'text'"),
        (
            {"image_0": GOOD, "text_0": GOOD[:3], "image_1": GOOD[:3], "text_1": GOOD},
            "4 rows of 'image' but 3 of 'text'",
        ),
        (
            {"image_0": GOOD, "text_0": GOOD, "image_1": GOOD[:, :2], "text_1": GOOD},
            r"'image': rows are \[2\] of float32 and \[3\] of float32",
        ),
        (
            {"image_0": GOOD, "text_0": GOOD, "image_1": GOOD, "text_1": GOOD.astype("f2")},
            "rows are .* of float16 and .* of float32",
        ),
    ],
)
def test_shards_that_do_not_fit_are_one_sentence(tmp_path, files, words):
    said(shards(tmp_path, **files), words)


def test_a_parquet_file_that_grows_a_thousandfold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("ape_jax.data.precomputed.source._LARGE", 2**20)
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(2**20, np.float32)), 2**13)
    table = pa.table({"image": column, "caption": ["a"] * len(column)})
    pq.write_table(table, tmp_path / "x.parquet", compression="zstd")
    said(f"features:{tmp_path}/x.parquet", "grows from .* bytes to 4,194,304 when it is unpacked")


@pytest.mark.parametrize("at", [4, 60, -60, -9])
def test_a_damaged_parquet_file_is_one_sentence(tmp_path, rng, at):
    table = pa.table({"image": rng.normal(size=(50, 4)).tolist(), "caption": ["a cat"] * 50})
    pq.write_table(table, tmp_path / "x.parquet", compression="zstd")
    content = bytearray((tmp_path / "x.parquet").read_bytes())
    content[at : at + 8] = b"\xff" * 8
    (tmp_path / "x.parquet").write_bytes(content)
    said(f"features:{tmp_path}/x.parquet", "data.pairs")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"image": [[[[1.0]]]], "caption": ["a"]}, "floating point"),
        ({"image": [[1.0, None]], "caption": ["a"]}, "1 nulls"),
        (
            {"image": pa.array([[]], pa.list_(pa.float32())), "caption": ["a"]},
            "one or more vectors",
        ),
        ({"image": [[float("nan")]], "caption": ["a"]}, "row 0 of 'image' is not finite"),
        ({"image": [[[1.0]], [[1.0], [2.0]]], "caption": ["a", "b"]}, "as many views"),
        ({"image": [[1.0]], "caption": [None]}, "row 0: .*caption"),
        ({"image": [[1.0]], "caption": ["a"], "id": [2.5]}, "row 0: 'id' is 2.5"),
        ({"image": [[1.0]], "caption": ["['a', 'b']"]}, "holds 2 captions; write each in its row"),
        ({"image": [b"x"], "text": [[1.0]]}, "lists of numbers"),
        ({"image": [{"a": 1.0}], "text": [[1.0]]}, "lists of numbers"),
        ({"image": [[1]], "text": [[1.0]]}, "floating point"),
    ],
)
def test_a_table_of_something_else_is_one_sentence(tmp_path, columns, words):
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    said(f"features:{tmp_path}/x.parquet", words)
