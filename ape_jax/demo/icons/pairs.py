"""Icons as image-text pairs: 61 thousand drawings of 171 sets, names as captions.

| split | what it holds |
|---|---|
| `train` | drawings of seen concepts by seen makers |
| `validation`, `test` | concepts that training never sees, one drawing each, by seen makers |
| `test_sets` | concepts and makers that training never sees |

From the npm package `@iconify/json` 2.2.535, which is downloaded, checked and read, and never run.
`names` turns names into captions, `sets` says which sets and icons are left out, `plan` makes the
splits, and `alike` finds drawings that are nearly equal. Every icon keeps its set's licence and
maker in its record; the metadata lists them all and counts what was dropped, by reason.

Records: `image` (RGBA, 112 x 112, black or in colour on a transparent ground), `caption`, `concept`
(the same for captions that differ in order, number or spaces only), `id` ("mdi:account-heart"),
`name`, `set`, `title`, `author`, `licence` (SPDX), `category`.

`partitions` splits the same drawings anew, by number.

An icon has one caption. Aliases are dropped: most are older spellings of a name, and one synonym
that crosses from training to test would be a leak.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ape_jax.demo import cache
from ape_jax.demo.icons.plan import SPLITS
from ape_jax.demo.packages import manifest, npm

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

    from ape_jax.demo.icons.plan import Icon, Plan

__all__ = ["SPLITS", "open_builder", "prepare"]

_PACKAGE = "@iconify/json"
# Raise it when records, captions or splits change: everybody's copy becomes outdated.
FORMAT = "1"
_SIZE = 450_000_000
_LISTED = "collections.json"
_NOTICE = """\
Icons of {count} sets from the npm package @iconify/json 2.2.535, rendered from SVG to PNG. Each set
has its own licence and maker; the records and dataset_info.json name them.
"""


def open_builder() -> DatasetBuilder:
    """Returns a prepared TFDS builder; the first call fetches, renders and writes the icons.

    `builder.as_data_source("train[:1000]")` reads them without TensorFlow; text comes as bytes.

    Raises:
      UserError: no npm, no network, or a cache that cannot be written.
    """
    directory = prepare()
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(str(directory / "ape_jax_icons" / "1.0.0"))


def prepare() -> Path:
    """Builds the data set unless it exists; returns the TFDS data directory."""
    return cache.make_once("icons", _build, lambda path: manifest.matches(path, FORMAT))


def _build(work: Path) -> None:
    cache.require_renderer()
    cache.require_space(_SIZE, "The icon data set needs")
    started = time.monotonic()
    package = npm.fetch_package(_PACKAGE, work)
    write(package, work)
    shutil.rmtree(package.parent)
    total = manifest.write(work, FORMAT)
    cache.say(f"icons: {total / 1e6:.1f} MB in {time.monotonic() - started:.1f} s")


def write(package: Path, directory: Path) -> None:
    """Builds the TFDS data set below `directory` from the package's tarball."""
    from ape_jax.demo.icons import builder  # imports TFDS

    plan = _read_plan(package)
    splits = _draw(package, plan)
    used = {icon.set.key: icon.set for icons in splits.values() for icon, _ in icons}
    metadata = {
        "dropped": dict(sorted(plan.dropped.items())),
        "concepts": {s: len({icon.concept for icon, _ in icons}) for s, icons in splits.items()},
        "captions": {s: len({icon.caption for icon, _ in icons}) for s, icons in splits.items()},
        "sets": {
            key: {"title": one.title, "author": one.maker, "licence": one.licence}
            for key, one in sorted(used.items())
        },
    }
    builder.prepare(splits, metadata, directory)
    shutil.rmtree(directory / "downloads", ignore_errors=True)  # TFDS makes it, empty
    (directory / "NOTICE").write_text(_NOTICE.format(count=len(used)))
    dropped = ", ".join(f"{count} {reason}" for reason, count in plan.dropped.most_common())
    cache.say(f"icons: without {dropped}")


def _read_plan(package: Path) -> Plan:
    from ape_jax.demo.icons.plan import IconSet, make_plan

    cache.say("icons: reading names")
    sets, listed = [], {}
    for name, content in npm.read_members(package, lambda name: _is_set(name) or name == _LISTED):
        if name == _LISTED:
            listed = json.loads(content)
        else:
            sets.append(IconSet.parse(json.loads(content)))
    return make_plan(sets, listed)


def _draw(package: Path, plan: Plan) -> dict[str, list[tuple[Icon, bytes]]]:
    """Draws each split's icons as PNG; nearly equal drawings are left out and counted."""
    import numpy as np

    from ape_jax.demo.icons import alike, render
    from ape_jax.terminal.progress import track

    icons = [icon for split in SPLITS for icon in plan.splits[split]]
    documents = _documents(package, icons)
    drawn = list(track(render.render_all(documents), "drawing icons", len(documents), "icons"))
    nothing = bytes(render.THUMBNAIL**2)
    thumbnails = np.frombuffer(b"".join(t or nothing for _, t in drawn), np.uint8)
    vectors = alike.standardised(thumbnails.reshape(len(icons), -1))
    split_of = np.repeat(SPLITS, [len(plan.splits[split]) for split in SPLITS])
    kept = _distinct(icons, split_of, vectors, plan)
    return {
        split: [(icons[i], drawn[i][0]) for i in np.flatnonzero(kept & (split_of == split))]
        for split in SPLITS
    }


def _distinct(icons: list[Icon], split_of: Any, vectors: Any, plan: Plan) -> Any:
    """Selects icons, bool [n]: those that can be seen and do not repeat one of training."""
    import numpy as np

    from ape_jax.demo.icons import alike

    empty = alike.is_empty(vectors)
    train = np.flatnonzero((split_of == "train") & ~empty)
    tests = np.flatnonzero((split_of != "train") & ~empty)
    repeated = alike.is_repeated(vectors[train], [icons[i].concept for i in train])
    train = train[~repeated]
    leaks = alike.closest(vectors[tests], vectors[train]) > alike.CORRELATION
    plan.dropped["drawings that cannot be seen on white"] += int(empty.sum())
    plan.dropped["drawings nearly equal to another of their concept"] += int(repeated.sum())
    for split in SPLITS[1:]:
        count = int((leaks & (split_of[tests] == split)).sum())
        plan.dropped[f"drawings of {split} nearly equal to one of train"] += count
    kept = np.zeros(len(icons), bool)
    kept[train] = True
    kept[tests[~leaks]] = True
    return kept


def _documents(package: Path, icons: list[Icon]) -> list[str]:
    from ape_jax.demo.icons import render

    wanted: dict[str, list[int]] = {}
    for i, icon in enumerate(icons):
        wanted.setdefault(f"json/{icon.set.key}.json", []).append(i)
    documents = [""] * len(icons)
    for name, content in npm.read_members(package, wanted.__contains__):
        icon_set = json.loads(content)
        for i in wanted[name]:
            documents[i] = render.document(icon_set, icons[i].name)
    return documents


def _is_set(name: str) -> bool:
    folder, _, file = name.rpartition("/")
    return folder == "json" and file.endswith(".json")
