"""Which files below a folder are images, and what is said of the others."""

import io
import os

import pytest
from PIL import Image

from ape_jax.images.folders import images_below


def encoded(format):
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, format)
    return out.getvalue()


@pytest.fixture
def put(tmp_path):
    """Writes files below a folder `top`, by their paths in it."""

    def put(**contents):
        for path, content in contents.items():
            file = tmp_path / "top" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return str(tmp_path / "top")

    return put


def names(top):
    return [os.path.relpath(path, top) for path in images_below(top).paths]


def test_images_are_found_by_ending_or_by_content(put):
    top = put(
        **dict.fromkeys(["a.jfif", "b.JPE", "c.avif", "d.jp2", "e.ppm", "f.png"], b"whatever"),
        **{"g": encoded("PNG"), "h.dat": encoded("AVIF"), "i.jpg_large": encoded("JPEG")},
        **{
            "j.txt": b"BM and more",
            "k.dng": encoded("TIFF"),
            "l": b"",
            "m.heic": b"\0\0\0\x18ftypheic",
        },
    )
    assert names(top) == ["a.jfif", "b.JPE", "c.avif", "d.jp2", "e.ppm", "f.png", "g", "h.dat",
                          "i.jpg_large"]  # fmt: skip
    (note,) = images_below(top).notes()
    assert note == "4 files of other kinds (1 without ending, 1 .dng, 1 .heic, 1 .txt)"


def test_files_of_macos_are_counted_and_no_images(put):
    litter = ["._a.png", ".DS_Store", "__MACOSX/a.png", "__MACOSX/below/b.png"]
    top = put(**{"a.png": b"", "below/._b.png": b""}, **dict.fromkeys(litter, encoded("PNG")))
    assert names(top) == ["a.png"]
    assert images_below(top).notes() == ("5 files of macOS (._* or __MACOSX)",)


def test_kinds_beyond_the_most_frequent_are_counted(put):
    top = put(**{f"{i}.{'abcdefgh'[i % 8]}": b"" for i in range(20)})
    assert images_below(top).notes() == (
        "20 files of other kinds (3 .a, 3 .b, 3 .c, 3 .d, 2 .e, 6 more)",
    )


def test_links_are_followed_once_each_and_in_no_circle(put, tmp_path):
    top = put(**{"z/a.png": b"", "z/below/b.png": b""})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "c.png").touch()
    for link, target in [
        ("a", f"{top}/z"), ("z/up", top), ("z/out", elsewhere), ("disk", "/"), ("gone", "no-such"),
        ("d.png", elsewhere / "c.png"),
    ]:  # fmt: skip
        os.symlink(target, os.path.join(top, link))
    os.symlink(top, elsewhere / "back")
    found = images_below(top)
    assert names(top) == ["d.png", "z/a.png", "z/below/b.png", "z/out/c.png"]
    assert found.notes() == (
        "1 files of other kinds (1 links to nothing, or no plain files)",
        "4 links to folders that are read already",
    )
    os.symlink(top, tmp_path / "link")
    linked = [os.path.relpath(path, tmp_path) for path in images_below(f"{tmp_path}/link").paths]
    assert linked == [f"link/{name}" for name in names(top)]


def test_a_pipe_is_not_waited_for(put):
    top = put(**{"a.png": b""})
    os.mkfifo(os.path.join(top, "pipe"))
    assert names(top) == ["a.png"]
