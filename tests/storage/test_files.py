"""Files that somebody else wrote."""

import os
import socket
import tracemalloc

import pytest

from ape_jax.errors import UserError
from ape_jax.storage import files

READERS = [files.check, files.sha256, files.read_bytes, files.read_text, files.read_json]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", ["folder", "pipe", "socket", "device"])
def test_what_is_no_file_is_said_at_once(tmp_path, monkeypatch, read, kind):
    monkeypatch.chdir(tmp_path)  # The name of a socket is short.
    path = {"device": "/dev/zero"}.get(kind, "x")
    if kind == "folder":
        os.mkdir(path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(path)
    with pytest.raises(UserError, match=rf"--flag: {path} is a {kind} and no file"):
        read(path, f"--flag: {path}")


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "half \ud800"])
def test_names_that_no_file_can_have_are_one_sentence(tmp_path, read, name):
    with pytest.raises(UserError, match=r"no name that a file can have|File name too long"):
        read(tmp_path / name)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("path", ["none", "file/in a file"])
def test_what_is_missing_is_left_to_the_caller(tmp_path, read, path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / path)


def test_no_more_than_the_bound_is_read(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match=r"is larger than 0 MB|is larger than 1 MB"):
        files.read_bytes(path, most=1_000_000)
    path.write_bytes(b"abc")
    assert files.read_bytes(path, most=3) == b"abc"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": \xff}', r"is not UTF-8 text \(byte 6\)"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "is not JSON"),
        (b'{"a": "\\ud800"}', "is not JSON .*surrogate"),
        (b'{"a": 1} trailing', "is not JSON"),
        (b"null", "holds null; expected an object"),
        (b"[1]", "holds a list; expected an object"),
        (b"true", "holds a truth value; expected an object"),
        (b'"a"', "holds a text; expected an object"),
        (b"1e999", "holds a number; expected an object"),
    ],
)
def test_what_is_no_json_object_is_one_sentence(tmp_path, content, reason):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason) as found:
        files.read_json(path, f"--flag: {path}")
    assert str(found.value).startswith(f"--flag: {path} ")
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 400


def test_json_with_and_without_a_mark_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"ā": "\\ud83d\\ude00"}', encoding="utf-8-sig")
    assert files.read_json(path) == {"ā": "😀"}
    path.write_text("[1, 2]")
    assert files.read_json(path, kind=list) == [1, 2]
    assert files.read_json(path, kind=object) == [1, 2]


def test_a_small_file_takes_little_memory(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    tracemalloc.start()
    try:
        assert files.read_json(tmp_path / "a.json") == {}
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="there is no /proc")
def test_a_file_that_claims_to_be_empty_is_read_to_its_end():
    assert b"VmRSS" in files.read_bytes("/proc/self/status")
