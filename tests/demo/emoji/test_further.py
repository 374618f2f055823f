"""Noto out of its npm package: which drawing belongs to which emoji, and what is said of others."""

import io
import json
import tarfile

import pytest
from PIL import Image

from ape_jax.demo.emoji import builder, further
from ape_jax.errors import UserError

ICONS = {
    "prefix": "noto",
    "width": 128,
    "height": 128,
    "icons": {
        "red-heart": {"body": '<path fill="#f00" d="M0 0h128v64H0z"/>'},
        "wide": {"body": '<path fill="#00f" d="M0 0h64v64H0z"/>', "width": 64, "height": 64},
    },
}
CHARS = {"2764-fe0f": "red-heart", "1f600": "wide", "1f601": "not-there"}


def package(path, **members):
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{name}.json")
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


def test_drawings_are_found_by_code_points(tmp_path):
    found = further.read_documents(package(tmp_path / "x.tgz", chars=CHARS, icons=ICONS))
    assert set(found) == {"2764", "1f600"}
    with Image.open(io.BytesIO(builder.rendered(found["2764"]))) as image:
        assert image.size == (112, 112) and image.mode == "RGBA"
        assert image.getpixel((56, 20)) == (255, 0, 0, 255)
        assert image.getpixel((56, 90))[3] == 0
    with Image.open(io.BytesIO(builder.rendered(found["1f600"]))) as image:
        assert image.getpixel((100, 100)) == (0, 0, 255, 255)  # Its own box, not the set's.


@pytest.mark.parametrize(
    "members",
    [{"chars": CHARS}, {"chars": [], "icons": ICONS}, {"chars": CHARS, "icons": {"icons": 3}}],
)
def test_another_package_is_refused(tmp_path, members):
    path = package(tmp_path / "x.tgz", **members)
    with pytest.raises(UserError, match=r"x\.tgz holds no set of emoji; clear the demo cache"):
        further.read_documents(path)
