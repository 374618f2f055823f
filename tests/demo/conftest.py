"""A small package in the layout of the real one, behind an `npm` of our own."""

import hashlib
import io
import json
import pathlib
import random
import stat
import string
import tarfile

import pytest

from ape_jax.demo.icons import pairs as icons
from ape_jax.demo.icons import plan as icons_plan
from ape_jax.demo.packages import fetch, npm

# Does what `npm pack` does: puts the tarball into the folder after --pack-destination.
NPM = """#!/bin/sh
if [ "$1" != pack ]; then exit 2; fi
while [ "$1" != --pack-destination ]; do shift; done
cp "{tarball}" "$2/iconify-json-2.2.535.tgz"
"""


def shapes(seed):
    """A drawing of its own for every seed."""
    draw = random.Random(seed)
    return "".join(
        f'<path fill="currentColor" d="M{draw.randint(0, 18)} {draw.randint(0, 18)}'
        f'h{draw.randint(2, 9)}v{draw.randint(2, 9)}h-{draw.randint(2, 9)}z"/>'
        for _ in range(5)
    )


def words():
    """Names without meaning: "thing aa", "thing ab", ..."""
    return [f"thing-{a}{b}x" for a in string.ascii_lowercase[:12] for b in string.ascii_lowercase]


def icon_set(key, maker, names, **info):
    return {
        "prefix": key,
        "info": {
            "name": f"The {key}",
            "author": {"name": maker},
            "license": {"title": "MIT License", "spdx": "MIT"},
            "category": "UI 24px",
            "palette": False,
            **info,
        },
        "icons": {name: {"body": shapes(f"{key} {name}")} for name in names},
        "width": 24,
        "height": 24,
    }


def side(split):
    """The first word whose concept falls to a split, and is drawn by no held-out maker."""
    return next(
        word
        for word in words()[200:]
        if icons_plan._split_of(" ".join(sorted(word.split("-"))), False) == split
    )


def make_sets():
    plain = [*words(), *(f"{word}-filled" for word in words())]
    alpha = icon_set("alpha", "Maker A", plain)
    alpha["suffixes"] = {"": "Line", "filled": "Filled"}
    still = alpha["icons"]
    still["gone-from-set"] = {"body": shapes("gone"), "hidden": True}
    still["moving-thing"] = {"body": shapes("moving") + '<animate attributeName="d"/>'}
    for name in ("24", "a-filled", "one-two-three-four-big-long-name", "logo-of-acme"):
        still[name] = {"body": shapes(name)}
    still["null"] = {"body": shapes("null")}
    still["snow-hare"] = {"body": '<path fill="#fff" d="M0 0h24v24H0z"/>'}
    still["broken-tag"] = {"body": "<path"}
    alpha["aliases"] = {"other-name": {"parent": words()[0]}}
    alpha["categories"] = {"Brand / Logo": ["acme-corporation"]}
    still["acme-corporation"] = {"body": shapes("acme")}
    beta = icon_set("beta", "Maker B", words(), palette=True)
    # One drawing twice under one name, and one of training again under a name of the test.
    beta["icons"][side("train")] = still[side("train")]
    for word in (side("test"), f"{side('test')}-filled"):
        still[word] = still[side("train")]
    beta["icons"][side("test")] = still[side("train")]
    still[f"{side('train')}-filled"] = still[side("train")]
    gamma = icon_set("gamma", "Marketeq", words()[:200])
    return [
        *(alpha, beta, gamma),
        icon_set("thelogos", "Maker C", ["acme"], category="Logos"),
        icon_set("faces", "Maker C", ["grin", "frown"], category="Emoji", palette=True),
        icon_set("flag", "Maker C", ["fr"], category="Flags / Maps", palette=True),
        icon_set("old", "Maker A", ["thing-aax"], hidden=True),
        icon_set("withdrawn", "Maker A", ["thing-abx"]),
    ]


def write_package(path, sets):
    members = {f"json/{one['prefix']}.json": one for one in sets}
    members["collections.json"] = {
        one["prefix"]: one["info"] for one in sets if one["prefix"] != "withdrawn"
    }
    members["package.json"] = {"name": "@iconify/json", "main": "index.js"}
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))


@pytest.fixture(scope="session")
def icon_sets():
    """The small package's sets, as its JSON files hold them."""
    return make_sets()


@pytest.fixture(scope="session")
def icon_package(tmp_path_factory, icon_sets):
    """Its tarball."""
    path = tmp_path_factory.mktemp("package") / "small.tgz"
    write_package(path, icon_sets)
    return path


def pretend_npm(monkeypatch, folder, tarball):
    """Puts an `npm` first in PATH that hands out the tarball, and pins it."""
    folder = pathlib.Path(folder)
    script = folder / "npm"
    script.write_text(NPM.format(tarball=tarball))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    digest = hashlib.sha256(pathlib.Path(tarball).read_bytes()).hexdigest()
    pinned = fetch.Archive("@iconify/json", "2.2.535", 1000, digest)
    monkeypatch.setitem(npm.PACKAGES, "@iconify/json", pinned)
    monkeypatch.setattr(fetch, "_PAUSE_SECONDS", 0.0)


@pytest.fixture
def npm_of(monkeypatch, tmp_path_factory):
    """npm_of(tarball): an `npm` that hands out that file as the pinned package."""
    return lambda tarball: pretend_npm(monkeypatch, tmp_path_factory.mktemp("bin"), tarball)


@pytest.fixture(scope="session")
def small_icons_cache(tmp_path_factory, icon_package):
    """A cache folder in which the icons of the small package are made."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        cache = tmp_path_factory.mktemp("icons_cache")
        monkeypatch.setenv("APE_JAX_CACHE", str(cache))
        pretend_npm(monkeypatch, tmp_path_factory.mktemp("bin"), icon_package)
        icons.prepare()
    return cache


@pytest.fixture
def small_icons(monkeypatch, small_icons_cache):
    """`demo:icons` is the small package's; the cache folder."""
    monkeypatch.setenv("APE_JAX_CACHE", str(small_icons_cache))
    return small_icons_cache
