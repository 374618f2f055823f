"""Folders in which images have texts beside them."""

import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from ape_jax.data.formats.folder import holds_images_and_texts, read_folder, stamp_folder
from ape_jax.data.rows import Ask, Broken, Row


def picture(color: int = 0) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), color, np.uint8)).save(out, "PNG")
    return out.getvalue()


def write(root, files: dict):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def read(root, **options):
    said: list[str] = []
    found = list(read_folder(str(root), Ask(key="data.pairs", say=said.append, **options)).rows)
    rows = [row for row in found if isinstance(row, Row)]
    return rows, [row for row in found if isinstance(row, Broken)], said


def captions(root, **options) -> dict:
    rows, broken, _ = read(root, **options)
    assert not broken
    return {os.path.relpath(r.fields["image"], root): r.fields["captions"] for r in rows}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cat.jpg": b"", "cat.txt": "a cat"}, {"cat.jpg": ["a cat"]}),
        ({"cat.JFIF": b"", "cat.TXT": "a cat"}, {"cat.JFIF": ["a cat"]}),
        ({"cat.jpg": b"", "cat.caption": "a cat"}, {"cat.jpg": ["a cat"]}),
        ({"cat.jpg": b"", "cat.jpg.txt": "a cat"}, {"cat.jpg": ["a cat"]}),
        ({"cat.jpg": b"", "cat.0.txt": "a", "cat.1.txt": "b"}, {"cat.jpg": ["a", "b"]}),
        ({"cat.jpg": b"", "cat.caption.txt": "a"}, {"cat.jpg": ["a"]}),
        ({"a.b.jpg": b"", "a.b.txt": "x", "a.txt": "y"}, {"a.b.jpg": ["x"]}),
        ({"x y/ä 1.png": b"", "x y/ä 1.txt": "one\n\n two"}, {"x y/ä 1.png": ["one", "two"]}),
        ({"k.png": b"", "k.json": '{"caption": "a"}'}, {"k.png": "a"}),
    ],
)  # fmt: skip
def test_texts_beside_images(tmp_path, files, expected):
    write(tmp_path, files)
    assert holds_images_and_texts(str(tmp_path))
    assert captions(tmp_path) == expected


def test_what_img2dataset_writes_as_files(tmp_path):
    files = {"00000.parquet": b"", "00000_stats.json": "{}", "00001_stats.json": "{}"}
    for i in (3, 1, 2):
        shard, meta = f"0000{i % 2}", {"caption": f"c{i}", "key": str(i), "status": "success"}
        files[f"{shard}/{i:09}.jpg"] = picture(i)
        files[f"{shard}/{i:09}.txt"] = f"c{i}"
        files[f"{shard}/{i:09}.json"] = json.dumps(meta)
    write(tmp_path, files)
    rows, broken, said = read(tmp_path)
    assert not broken and not said
    assert [r.fields["captions"] for r in rows] == [["c2"], ["c1"], ["c3"]]
    chosen = read(tmp_path, columns={"id": ("key",)})[0]
    assert [row.fields["key"] for row in chosen] == ["2", "1", "3"]


def test_what_is_left_out_is_named_by_kind_and_number(tmp_path):
    files = {"cat.jpg": b"", "cat.txt": "a", "._cat.jpg": b"", ".DS_Store": b"", "a.mp4": b"",
             "b.mp4": b"", "README": "", "classes.txt": "x", ".hidden": ""}  # fmt: skip
    write(tmp_path, files)
    os.symlink("nowhere", tmp_path / "gone.jpg")
    _, _, (said,) = read(tmp_path)
    for part in ("2 files of macOS", "2 .mp4 files", "1 other files", "1 .txt files", "1 links to"):
        assert part in said


def test_an_image_without_a_text_is_a_row_that_cannot_be_used(tmp_path):
    write(tmp_path, {"cat.jpg": b"", "cat.txt": "a", "sub/dog.jpg": b""})
    rows, broken, _ = read(tmp_path)
    assert len(rows) == 1 and [(b.at, b.kind) for b in broken] == [("sub/dog.jpg", "no caption")]
    assert "dog.txt" in broken[0].reason


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff\xfe", "UTF-8"), (b"x" * 11_000_000, "larger than 10 MB")],
)
def test_a_text_that_cannot_be_read_is_named_and_reading_goes_on(tmp_path, content, words):
    write(tmp_path, {"a.jpg": b"", "a.txt": content, "b.jpg": b"", "b.txt": "b"})
    rows, broken, _ = read(tmp_path)
    assert len(rows) == 1 and broken[0].at == "a.txt" and words in broken[0].reason


def test_links_to_folders_are_followed_once(tmp_path):
    write(tmp_path / "data", {"a/cat.jpg": b"", "a/cat.txt": "a"})
    os.symlink(tmp_path / "data", tmp_path / "data" / "a" / "loop")
    os.symlink(tmp_path / "data", tmp_path / "link")
    assert captions(tmp_path / "link") == {"a/cat.jpg": ["a"]}


def test_folders_of_any_depth_and_folders_that_are_closed(tmp_path):
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):  # Longer than a path may be.
        os.mkdir("deep", dir_fd=at)
        below = os.open("deep", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    write(tmp_path, {"cat.jpg": b"", "cat.txt": "a"})
    rows, broken, said = read(tmp_path)
    assert len(rows) == 1 and not broken and "folders that cannot be opened" in said[0]
    _remove_deep(tmp_path)


def _remove_deep(root) -> None:
    """Moves the folders up one by one: pytest's own removal is by path."""
    while (root / "deep" / "deep").exists():
        os.rename(root / "deep" / "deep", root / "below")
        os.rmdir(root / "deep")
        os.rename(root / "below", root / "deep")


def test_a_folder_of_images_alone_or_of_texts_alone_is_of_another_kind(tmp_path):
    write(tmp_path / "a", {"cat.jpg": b"", "dog.jpg": b""})
    write(tmp_path / "b", {"cat.txt": "x"})
    assert not holds_images_and_texts(str(tmp_path / "a"))
    assert not holds_images_and_texts(str(tmp_path / "b"))


def test_a_changed_text_changes_the_stamp(tmp_path):
    write(tmp_path, {"cat.jpg": b"", "cat.txt": "a", "sub/x.png": b"", "sub/x.txt": "b"})
    first = stamp_folder(str(tmp_path), "k")
    assert stamp_folder(str(tmp_path), "k") == first
    write(tmp_path, {"sub/x.txt": "bb"})
    assert stamp_folder(str(tmp_path), "k") != first
