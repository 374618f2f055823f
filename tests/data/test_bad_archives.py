"""Damaged and hostile archives: one sentence each, in bounded time and memory."""

import bz2
import gzip
import io
import lzma
import os
import resource
import tarfile

import pytest

from ape_jax.data.archives import compressed, headers
from ape_jax.data.formats.webdataset import read_tar
from ape_jax.data.rows import Ask, Broken, Row
from ape_jax.errors import UserError

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


def tar(*members: tuple[str, bytes], **options) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info.tobuf(tarfile.GNU_FORMAT)


def pax(content: bytes, behind: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    padding = bytes(-len(content) % 512)
    return header("pax", len(content), kind) + content + padding + behind


def record(text: str) -> bytes:
    """One record of an extended header: its own length, a space, and the rest."""
    length = len(text) + 2
    while len(f"{length} {text}\n") != length:
        length += 1
    return f"{length} {text}\n".encode()


GOOD = tar(("0.png", PNG), ("0.txt", b"zero"), ("1.png", PNG), ("1.txt", b"one"))
ONE = GOOD[: GOOD.index(b"1.png")]
END = bytes(1024)
DEEP = b"".join(pax(record("comment=x"), b"") for _ in range(3000)) + header("0.png")


def _broken_header(content: bytes) -> bytes:
    at = content.index(b"1.png")
    return content[:at] + b"\xff" * 512 + content[at + 512 :]


# What ends the reading of a file.
REFUSED = {
    "nothing": (b"", "empty file"),
    "text": (b"hello" * 1000, "damaged or cut"),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid x\n", "lfs pull"),
    "a web page": (b"<!DOCTYPE html><html>404</html>" * 100, "web page"),
    "a ZIP archive": (b"PK\x03\x04" + bytes(1000), "ZIP"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(1000), "zstd"),
    "a pickle": (b"\x80\x04\x95" + bytes(1000), "damaged or cut"),
    "a header of a huge size": (header("0.png", 2**62) + END, "claims"),
    "a negative size": (header("0.png").replace(b"00000000000\0", b"\xff" * 12) + END, "damaged"),
    "a name of 8 GiB": (header("././@LongLink", 2**33, tarfile.GNUTYPE_LONGNAME) + END, "claims"),
    "an extended header of 4 GiB": (header("pax", 2**32, tarfile.XHDTYPE) + END, "claims"),
    "3000 extended headers in a row": (DEEP + END, "damaged or cut"),
    "a size below zero in an extended header": (
        pax(record("size=-99999"), header("0.png", 10) + bytes(512)) + END,
        "claims",
    ),
    "a huge size in an extended header": (
        pax(record(f"size={2**61}"), header("0.png", 10) + bytes(512)) + END,
        "claims",
    ),
    "gzip cut": (gzip.compress(GOOD)[:-20], "damaged or cut"),
    "gzip damaged": (gzip.compress(GOOD)[:20] + b"\xff" * 40, "damaged or cut"),
    "bzip2 cut": (bz2.compress(GOOD)[:-9], "damaged or cut"),
    "xz cut": (lzma.compress(GOOD)[:-9], "damaged or cut"),
    "gzip of text": (gzip.compress(b"hello" * 1000), "damaged or cut"),
}  # fmt: skip
# What ends it behind the first record, with the number of records that are read.
CUT = {
    "cut in an image": (GOOD[:-9216][: len(ONE) + 600], 1),
    "cut in a header": (GOOD[: len(ONE) + 100], 1),
    "cut between records": (ONE, 1),
    "a broken header": (_broken_header(GOOD), 1),
    "a second tar behind the first": (GOOD + GOOD, 2),
    "a member that claims all of the disk": (ONE + header("1.png", 2**60) + END, 1),
}
# What is wrong with one record.
BROKEN = {
    "a member twice": (tar(("0.png", PNG), ("0.png", PNG), ("0.txt", b"x")), "twice"),
    "no image": (tar(("0.txt", b"x")), "0 images"),
    "two images": (tar(("0.png", PNG), ("0.jpg", PNG), ("0.txt", b"x")), "2 images"),
    "text in another encoding": (tar(("0.png", PNG), ("0.txt", b"\xff\xfe\xff")), "UTF-8"),
    "JSON that is none": (tar(("0.png", PNG), ("0.json", b"{")), "JSON"),
    "JSON that is a number": (tar(("0.png", PNG), ("0.json", b"3")), "JSON object"),
    "JSON of 100,000 brackets": (tar(("0.png", PNG), ("0.json", b"[" * 100_000)), "JSON"),
    "a text of 20 MB": (tar(("0.png", PNG), ("0.txt", b"x" * 20_000_000)), "bytes"),
    "a link to a file of the machine": (
        header("0.png", 0, tarfile.SYMTYPE, "/etc/passwd") + END,
        "no plain file",
    ),
    "a link to itself": (header("0.png", 0, tarfile.LNKTYPE, "0.png") + END, "no plain file"),
    "a device": (header("0.png", 0, tarfile.CHRTYPE) + END, "no plain file"),
    "a sparse file": (
        pax(
            record("GNU.sparse.map=0,1") + record("GNU.sparse.size=9"),
            header("0.png", 1) + b"x" * 512,
        )
        + END,
        "no plain file",
    ),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bounded():
    """No more than 100 MB above what the process has."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def read(path) -> list[Row | Broken]:
    return list(read_tar(str(path), Ask(key="data.pairs", say=lambda line: None)).rows)


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_be_read_is_one_sentence(name, tmp_path, bounded):
    content, words = REFUSED[name]
    path = tmp_path / "p.tar"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and words in message and "\n" not in message


@pytest.mark.parametrize("name", CUT)
def test_what_lies_before_a_damage_is_read_and_the_rest_is_counted(name, tmp_path, bounded):
    content, count = CUT[name]
    path = tmp_path / "p.tar"
    path.write_bytes(content)
    *rows, last = read(path)
    assert [row.at for row in rows if isinstance(row, Row)] == [f"{i}.png" for i in range(count)]
    assert isinstance(last, Broken) and last.at.startswith("byte ") and "\n" not in last.reason


@pytest.mark.parametrize("name", BROKEN)
def test_a_record_that_cannot_be_used_is_one_phrase_and_reading_goes_on(name, tmp_path, bounded):
    content, words = BROKEN[name]
    path = tmp_path / "p.tar"
    path.write_bytes(_continued(content))
    found = read(path)
    assert isinstance(found[0], Broken) and words in found[0].reason and "\n" not in found[0].reason
    assert isinstance(found[-1], Row) and found[-1].at == "1.png"


def _continued(content: bytes) -> bytes:
    """A tar with another record in the place of the zeros that end it."""
    end = 512 * -(-len(content.rstrip(b"\0")) // 512)
    return content[:end] + tar(("1.png", PNG), ("1.txt", b"one"))


def test_headers_are_read_as_tarfile_reads_them(tmp_path):
    names = ["a.png", "x/" * 60 + "b.png", "ä" * 40 + ".png", "n" * 200, "d/", "e f.png"]
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        known = [name for name in names if form != tarfile.USTAR_FORMAT or len(name) < 200]
        path = tmp_path / "p.tar"
        path.write_bytes(tar(*((name, name.encode()) for name in known), format=form))
        with tarfile.open(path) as archive:
            expected = [(i.name, i.offset_data, i.size) for i in archive]
        assert [member[:3] for member in headers.members(str(path))] == expected


def test_paths_that_lead_out_are_names_and_nothing_is_written(tmp_path):
    names = ("../../evil", "/etc/evil", "a/../../b", "C:\\evil")
    members = [(f"{n}.{e}", c) for n in names for e, c in (("png", PNG), ("txt", b"x"))]
    (tmp_path / "p.tar").write_bytes(tar(*members))
    before = sorted(os.listdir(tmp_path))
    rows = read(tmp_path / "p.tar")
    assert [row.suffix for row in rows] == [f"/{name}" for name in names]
    assert sorted(os.listdir(tmp_path)) == before


def test_a_gzip_bomb_is_stopped_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(compressed, "_ALWAYS_ALLOWED", 2**22)
    path = tmp_path / "p.tar.gz"
    path.write_bytes(gzip.compress(ONE + bytes(2**26)))
    with pytest.raises(UserError, match="decompress to more than"):
        read(path)
    assert not [f for f in (tmp_path / "cache" / "tars").iterdir() if f.suffix != ".lock"]


def test_a_copy_needs_room(tmp_path, monkeypatch):
    monkeypatch.setattr(compressed, "_KEPT_FREE", 2**62)
    path = tmp_path / "p.tar.gz"
    path.write_bytes(gzip.compress(GOOD))
    with pytest.raises(UserError, match="there is no room for a copy"):
        read(path)


def test_too_many_files_are_refused_before_memory_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr("ape_jax.data.archives.records._MOST_FILES", 3)
    (tmp_path / "p.tar").write_bytes(GOOD)
    with pytest.raises(UserError, match="more than 3 files"):
        read(tmp_path / "p.tar")
