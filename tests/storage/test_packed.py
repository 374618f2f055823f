"""Compressed files as a stream."""

import bz2
import gzip
import lzma
import os

import pyarrow as pa
import pytest

from ape_jax.errors import UserError
from ape_jax.storage import packed

PACK = {
    "": bytes,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: pa.compress(content, "zstd", asbytes=True),
}
CONTENT = os.urandom(70_000) + bytes(300_000) + b"end"


def read(path, size):
    found = b""
    with packed.opened(path) as stream:
        while chunk := stream.read(size):
            found += chunk
    return found


@pytest.mark.parametrize("size", [1 << 10, 65_537, 1 << 20])
@pytest.mark.parametrize("kind", PACK)
def test_what_was_packed_is_read(tmp_path, kind, size):
    (tmp_path / "x").write_bytes(PACK[kind](CONTENT))
    assert packed.kind_of((tmp_path / "x").read_bytes()) == kind
    assert read(tmp_path / "x", size) == CONTENT


@pytest.mark.parametrize("padding", [0, 4, 1 << 18])
def test_streams_that_follow_each_other_are_read_with_zeros_between_them(tmp_path, padding):
    """As the command xz does; Python's own reader ends at the zeros."""
    parts = [lzma.compress(x) + bytes(padding) for x in (b"one", b"", CONTENT, b"two")]
    (tmp_path / "x").write_bytes(b"".join(parts))
    assert read(tmp_path / "x", 1000) == b"one%stwo" % CONTENT


@pytest.mark.parametrize("kind", [kind for kind in PACK if kind])
@pytest.mark.parametrize("cut", [7, 40, -1])
def test_what_is_cut_is_damaged(tmp_path, kind, cut):
    (tmp_path / "x").write_bytes(PACK[kind](CONTENT)[:cut])
    with pytest.raises(packed.DAMAGED):
        read(tmp_path / "x", 1 << 20)


def test_xz_takes_no_more_memory_than_it_may(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(lzma.compress(b"x", preset=6))
    monkeypatch.setattr(packed, "XZ_MEMORY", 1 << 20)
    with pytest.raises(lzma.LZMAError, match=r"[Mm]emory"):
        read(tmp_path / "x", 1)


def test_what_is_no_file_is_said(tmp_path):
    os.mkfifo(tmp_path / "x")
    with pytest.raises(UserError, match="a pipe"):
        read(tmp_path / "x", 1)
