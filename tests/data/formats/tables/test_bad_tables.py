"""Damaged and hostile tables: one sentence each, in bounded memory."""

import bz2
import functools
import gzip
import io
import json
import lzma
import os
import struct
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ape_jax.data import open_pairs
from ape_jax.data.formats.tables import arrow_checks, opened
from ape_jax.errors import UserError

GOOD = {"image": ["a.png"] * 50, "caption": [f"caption {i}" for i in range(50)]}
HEADER = b"image,caption\n"
LINE = b'{"image": "a.png", "caption": "x"}\n'
ZSTD = pa.Codec("zstd")


@functools.cache
def parquet(**options):
    out = io.BytesIO()
    pq.write_table(pa.table(GOOD), out, **options)
    return out.getvalue()


@functools.cache
def arrow(compression=None, stream=False, **columns):
    out = io.BytesIO()
    table = pa.table(dict(columns) or GOOD)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with new(out, table.schema, options=options) as writer:
        writer.write_table(table)
    return out.getvalue()


def patched(data, at, new):
    at = at if at >= 0 else len(data) + at
    return data[:at] + new + data[at + len(new) :]


def offsets_out_of_the_file():
    """An Arrow file in which an offset of a caption leads far behind its buffer."""
    data = arrow(image=("a.png", "b.png"), caption=("one", "three"))
    ends = struct.pack("<iii", 0, 3, 8)
    return data.replace(ends, struct.pack("<iii", 0, 3, 2**30))


def offsets_that_fall():
    data = arrow(image=("a.png", "b.png"), caption=("one", "three"))
    return data.replace(struct.pack("<iii", 0, 3, 8), struct.pack("<iii", 0, 8, 3))


def index_out_of_the_dictionary():
    index = pa.DictionaryArray.from_arrays(
        pa.array([0, 7], pa.int8()), pa.array(["one"]), safe=False
    )
    out = io.BytesIO()
    table = pa.table({"image": ["a.png", "b.png"], "caption": index})
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def a_buffer_that_claims_a_terabyte():
    data = arrow("zstd", image=("a.png",) * 500, caption=("caption " * 50,) * 500)
    frame = data.index(b"\x28\xb5\x2f\xfd", data.index(b"\x28\xb5\x2f\xfd") + 4)
    return patched(data, frame - 8, struct.pack("<q", 2**40))


def pages_of_zeros():
    column = pa.array([b"\0" * 2**20] * 40)
    out = io.BytesIO()
    table = pa.table({"image": column, "caption": ["x"] * 40})
    pq.write_table(table, out, compression="zstd", use_dictionary=False)
    return out.getvalue()


def repeated(rows=4200):
    """A Parquet file of under a kilobyte that decodes to a megabyte a row."""
    index = pa.DictionaryArray.from_arrays(
        pa.array([0] * rows, pa.int32()), pa.array([b"\0" * 2**20])
    )
    out = io.BytesIO()
    pq.write_table(pa.table({"image": index, "caption": ["x"] * rows}), out, compression="zstd")
    return out.getvalue()


BAD = {
    # name: (file, bytes, what the sentence says)
    "csv: utf-16 that is cut": ("p.csv", (HEADER.decode() * 9).encode("utf-16")[:-1], "damaged"),
    "csv: cyrillic of one byte": ("p.csv", HEADER + "a,кошка и дом".encode("cp1251"), "UTF-8"),
    "csv: japanese of two bytes": ("p.csv", HEADER + "a,猫と家の写真".encode("shift-jis"), "UTF-8"),
    "csv: one wrong byte": ("p.csv", HEADER + "a,ä\n".encode() + b"b,\xff\n", "p.csv:3"),
    "csv: a zero byte": ("p.csv", HEADER + b"a.png,a\0b\n", "zero byte"),
    "csv: zeros": ("p.csv", bytes(5000), "p.csv"),
    "csv: zeros behind rows": ("p.csv", HEADER + b"a.png,a\n" + bytes(5000), "p.csv:3"),
    "csv: random bytes": ("p.csv", bytes(range(128, 256)) * 40, "UTF-8"),
    "csv: a line of 11 MB": ("p.csv", HEADER + b"a" * 11 * 2**20, "p.csv:2: the line is longer"),
    "csv: a cell that never ends": ("p.csv", HEADER + b'a,"' + b"x\n" * 9, "p.csv:2: a quote"),
    "csv: a quote that swallows": ("p.csv", HEADER + b'a.png,"b\nc.png,d\ne.png,f"\n', "p.csv:2"),
    "csv: text behind a quote": ("p.csv", HEADER + b'a.png,"b" c\n', "double those inside"),
    "csv: too few cells": ("p.csv", HEADER + b"a.png\n", "found 1 cells"),
    "csv: a million cells": ("p.csv", HEADER + b"," * 10**6 + b"x", "found 1000001 cells"),
    "csv: a workbook": ("p.csv", b"PK\x03\x04" + bytes(99), "CSV UTF-8"),
    "csv: an old workbook": ("p.csv", b"\xd0\xcf\x11\xe0" + bytes(99), "CSV UTF-8"),
    "csv: a web page": ("p.csv", b"\n<!DOCTYPE html><title>404", "download it again"),
    "csv: Git LFS": ("p.csv", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    "csv: Parquet": ("p.csv", parquet(), "name it .parquet"),
    "csv: a pickle": ("p.csv", b"\x80\x04\x95" + bytes(9), "pickle"),
    "csv: gzip that is cut": ("p.csv.gz", gzip.compress(os.urandom(999))[:-20], "decompressed"),
    "csv: gzip of another sum": ("p.csv", patched(gzip.compress(HEADER), -8, b"abc"), "decompress"),
    "csv: zstd that is cut": ("p.csv.zst", ZSTD.compress(HEADER * 9, asbytes=True)[:-9], "p.csv"),
    "csv: xz that is damaged": ("p.csv", patched(lzma.compress(HEADER), 20, b"abc"), "decompress"),
    "csv: bzip2 that is damaged": ("p.csv", patched(bz2.compress(HEADER), 20, b"ab"), "decompress"),
    "csv: no columns": ("p.csv", b"\n\n,,\n", "p.csv"),
    "xlsx": ("p.xlsx", b"PK\x03\x04", "save the sheet as CSV"),
    "jsonl: deep lists": ("p.jsonl", LINE + b"[" * 10**6, "nested too deep"),
    "jsonl: deep objects": ("p.jsonl", LINE + b'{"a":' * 10**5 + b"\n" + LINE, "nested too deep"),
    "jsonl: a line that is cut": ("p.jsonl", LINE + LINE[:-5], "p.jsonl:2"),
    "jsonl: a line of 11 MB": ("p.jsonl", LINE + b'{"a":"' + b"x" * 11 * 2**20, "is longer"),
    "jsonl: not UTF-8": ("p.jsonl", LINE + b'{"image": "\xff"}\n' + LINE, "p.jsonl:2"),
    "jsonl: an overlong zero": ("p.jsonl", LINE + b'{"image": "\xc0\x80"}\n' + LINE, "UTF-8"),
    "jsonl: a list": ("p.jsonl", LINE + b"[1]\n", "instead of a JSON object"),
    "jsonl: a key twice": ("p.jsonl", LINE + b'{"image": 1, "image": 2}\n', "is there twice"),
    "jsonl: two objects": ("p.jsonl", LINE + b'{"image": 1} {"image": 2}\n', "behind the object"),
    "jsonl: a number of 5000 digits": ("p.jsonl", LINE + b'{"a": %s}' % (b"9" * 5000), "digits"),
    "json: deep lists": ("p.json", b"[" * 10**6, "nested too deep"),
    "json: deep objects": ("p.json", b'{"a":' * 10**6, "nested too deep"),
    "json: cut in a list": ("p.json", b"[" + LINE + b"," + LINE[:-9], "p.json:2: the file ends"),
    "json: cut behind a comma": ("p.json", b"[" + LINE + b",", "the file ends"),
    "json: a list not closed": ("p.json", b"[" + LINE, "the file ends"),
    "json: text behind it": ("p.json", b"[" + LINE + b"] x", "something stands behind"),
    "json: no comma": ("p.json", b"[" + LINE + LINE + b"]", "p.json:2: found '{'"),
    "json: a number": ("p.json", b"5", "no JSON object or list"),
    "json: no list": ("p.json", b'{"a": 1, "b": "c"}', "p.json:1: found the columns"),
    "json: a list beside values": ("p.json", b'{"a": {"b": 1}, "c": 2}', "no list of objects"),
    "json: numbers in objects": ("p.json", b'{"a": {"b": 1}}', "found the columns"),
    "json: columns of two lengths": ("p.json", b'{"image": ["a"], "text": []}', "lengths"),
    "json: a value of 11 MB": ("p.json", b'["' + b"x" * 11 * 2**20, "p.json:1: one value"),
    "json: not UTF-8": ("p.json", b'[{"image": "\xff"}]', "p.json:1: the text is not UTF-8"),
    "json: keys that are numbers": ("p.json", b"{1: 2}", "p.json:1"),
    "json: XML": ("p.json", b"<?xml version='1.0'?>", "XML"),
    "parquet: empty": ("p.parquet", b"", "not a readable Parquet file"),
    "parquet: text": ("p.parquet", HEADER * 9, "not a readable Parquet file"),
    "parquet: cut": ("p.parquet", parquet()[:-50], "not a readable Parquet file"),
    "parquet: its end alone": ("p.parquet", parquet()[-200:], "not a readable Parquet file"),
    "parquet: a footer of 4 GB": (
        "p.parquet",
        patched(parquet(), -8, b"\xff\xff\xff\xff"),
        "not a readable Parquet file",
    ),
    "parquet: a damaged page": (
        "p.parquet",
        patched(parquet(write_page_checksum=True), 60, b"\xff" * 8),
        "not a readable Parquet file",
    ),
    "parquet: a damaged footer": ("p.parquet", patched(parquet(), -60, bytes(40)), "p.parquet"),
    "parquet: numbers as images": (
        "p.parquet",
        None,
        "write paths, bytes, or a struct",
    ),
    "parquet: an Arrow file": ("p.parquet", arrow(), "not a readable Parquet file"),
    "parquet: a dictionary bomb": ("p.parquet", repeated(), "decodes to 4"),
    "arrow: empty": ("p.arrow", b"", "not a readable Arrow file"),
    "arrow: text": ("p.arrow", HEADER * 9, "not a readable Arrow file"),
    "arrow: cut": ("p.arrow", arrow()[:-50], "not a readable Arrow file"),
    "arrow: a stream that is cut": ("p.arrow", arrow(stream=True)[:-300], "not a readable Arrow"),
    "arrow: a footer of 2 GB": (
        "p.arrow", patched(arrow(), -10, struct.pack("<i", 2**31 - 1)), "not a readable Arrow file",
    ),
    "arrow: a message of 2 GB": (
        "p.arrow", struct.pack("<Ii", 0xFFFFFFFF, 2**31 - 1) + bytes(99), "not a readable Arrow",
    ),
    "arrow: Feather 1": ("p.feather", b"FEA1" + bytes(99), "Feather of version 1"),
    "arrow: offsets out of the file": ("p.arrow", offsets_out_of_the_file(), "not a readable"),
    "arrow: offsets that fall": ("p.arrow", offsets_that_fall(), "not a readable Arrow file"),
    "arrow: an index out of its dictionary": (
        "p.arrow", index_out_of_the_dictionary(), "not a readable Arrow file",
    ),
    "arrow: a buffer of a terabyte": ("p.arrow", a_buffer_that_claims_a_terabyte(), "decodes to"),
}  # fmt: skip


def sentence(path):
    with pytest.raises(UserError) as error:
        open_pairs(path)
    said = str(error.value)
    assert "\n" not in said and len(said) < 700 and os.path.basename(path) in said
    return said


@pytest.mark.parametrize("name", BAD)
def test_one_sentence(name, tmp_path):
    file, data, expected = BAD[name]
    if data is None:
        data = io.BytesIO()
        pq.write_table(pa.table({"image": [1, 2], "caption": ["a", "b"]}), data)
        data = data.getvalue()
    (tmp_path / "a.png").write_bytes(b"not decoded here")
    (tmp_path / file).write_bytes(data)
    assert expected in sentence(tmp_path / file)


@pytest.mark.parametrize(
    ("file", "data"),
    [
        ("p.csv.gz", gzip.compress(HEADER + (b"a.png," + b"x" * 999 + b"\n") * 2**13)),
        ("p.jsonl.xz", lzma.compress((LINE[:-1] + b" " * 999 + b"\n") * 2**12)),
        ("p.json.zst", ZSTD.compress(b"[" + b" " * 2**22, asbytes=True)),
        ("p.parquet", pages_of_zeros()),
        ("p.parquet", repeated(9)),
        ("p.arrow", arrow("zstd", image=("a.png",) * 9, caption=("x" * 2**20,) * 9)),
    ],
)
def test_files_that_grow_without_measure(file, data, tmp_path, monkeypatch):
    monkeypatch.setattr(opened, "FREE_BYTES", 2**21)
    monkeypatch.setattr(opened, "MAX_GROWTH", 100)
    monkeypatch.setattr(arrow_checks, "FREE_BYTES", 2**21)
    monkeypatch.setattr(arrow_checks, "MAX_GROWTH", 100)
    (tmp_path / file).write_bytes(data)
    assert "of a file of" in (said := sentence(tmp_path / file)) or "decompress to over" in said


MEASURED = """
import resource, sys
import pyarrow.parquet, pyarrow.compute
from ape_jax.data import open_pairs
from ape_jax.data.formats.tables import opened
from ape_jax.errors import UserError
# An eighth of a gigabyte stands for the one that is allowed, which takes its time.
opened.FREE_BYTES = 2**27
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        open_pairs(path)
    except UserError as e:
        print(e)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert after - before < 100 * 1024, (before, after)
"""


def test_memory_for_what_grows_to_gigabytes(tmp_path):
    member = gzip.compress(bytes(2**24))
    files = {
        "zeros.csv.gz": member * 10,
        "lines.jsonl.gz": gzip.compress(LINE) + gzip.compress(b"\n" * 2**24) * 10,
        "list.json.gz": gzip.compress(b"[") + gzip.compress(b" " * 2**24) * 10,
        "repeated.parquet": repeated(),
        "claims.arrow": a_buffer_that_claims_a_terabyte(),
        "long.csv": HEADER + b"x" * 60 * 2**20,
        "quote.csv": HEADER + b'a.png,"' + (b"word " * 200 + b"\n") * 60_000,
        "long.json": b'[{"image": "' + b"x" * 60 * 2**20,
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    paths = [str(tmp_path / name) for name in files]
    found = subprocess.run(
        [sys.executable, "-c", MEASURED, *paths], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert len(found.stdout.strip().split("\n")) == len(files)


def test_every_byte_that_is_flipped_in_arrow_and_parquet(tmp_path, monkeypatch):
    """Nothing but a UserError, whatever a byte becomes; what cannot be noticed is read."""
    (tmp_path / "a.png").write_bytes(b"not decoded here")
    for name, data in (("p.arrow", arrow()), ("p.parquet", parquet())):
        for at in range(0, len(data), max(1, len(data) // 60)):
            (tmp_path / name).write_bytes(patched(data, at, bytes([data[at] ^ 0xFF])))
            try:
                open_pairs(tmp_path / name)
            except UserError as e:
                assert "\n" not in str(e)


def test_json_of_any_shape_is_read_or_refused(tmp_path):
    shapes = [None, "x", [], {}, [[1]], {"a": [[]]}, {"image": None}]
    (tmp_path / "p.json").touch()
    for first in shapes:
        for second in shapes:
            for value in (
                [first, second],
                {"x": first, "image": second},
                {"data": [first, second]},
            ):
                (tmp_path / "p.json").write_text(json.dumps(value))
                assert sentence(tmp_path / "p.json")
