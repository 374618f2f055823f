"""Selects icons with captions and splits; counts what is left out, by reason.

* One drawing a maker and concept: a maker's sets repeat each other in other styles. In colour if
  there is one (few are), else by hash.
* Whole makers are held out (`HELD_OUT_MAKERS`, chosen for a spread of styles). A part of the
  concepts they draw is `test_sets`; nothing else of theirs is used.
* Every other concept falls to `train`, `validation` or `test` by a hash of its key. The last two
  and `test_sets` hold one drawing a concept, so that a retrieved namesake is not an error.
* Train holds a concept at most `MOST_DRAWINGS` times; the commonest ("arrow left") have a hundred.

`SPLITS` lists the splits. No concept is in two of them, no held-out maker in `train`.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from ape_jax.demo.icons.names import Cleaner, concept_keys, problem
from ape_jax.demo.icons.sets import (
    BRAND_SOURCES,
    brand_captions,
    brand_icons,
    is_brand,
    unused_set,
)

SPLITS: tuple[str, ...] = ("train", "validation", "test", "test_sets")
MOST_DRAWINGS = 6
# Pixels, colour, retro print, strokes, solids, broadcasting, maps, an outline font.
HELD_OUT_MAKERS = frozenset(
    {
        *("atelierAnchor", "Picon Contributors", "Marketeq", "CyCraft", "Michael Amprimo"),
        *("Vaadin", "Norsk rikskringkasting", "Jean-Marc Viglino", "YANDEX LLC"),
    }
)
_ALIASES = "aliases"
_TEST_SETS_SHARE = 0.55
_TEST_SHARE, _VALIDATION_SHARE = 0.042, 0.028


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IconSet:
    """A set without its drawings: what planning needs.

    Attributes:
      names: of the icons that are visible and stand still.
      brands: names that the set itself files under brands.
      left_out: how many icons are not in `names`, by reason.
    """

    key: str
    title: str
    maker: str
    licence: str
    category: str
    colour: bool
    names: tuple[str, ...]
    brands: frozenset[str]
    prefixes: tuple[str, ...]
    suffixes: tuple[str, ...]
    left_out: dict[str, int]

    @property
    def count(self) -> int:
        """Number of icons of the set, without aliases."""
        return len(self.names) + sum(self.left_out.values()) - self.left_out[_ALIASES]

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> IconSet:
        """Reads a `json/<set>.json`."""
        info = content["info"]
        left_out = {
            "hidden icons": sum(bool(i.get("hidden")) for i in content["icons"].values()),
            "animated icons": sum(
                _is_animated(i["body"]) and not i.get("hidden") for i in content["icons"].values()
            ),
            _ALIASES: len(content.get("aliases", {})),
        }
        names = (
            name
            for name, icon in content["icons"].items()
            if not icon.get("hidden") and not _is_animated(icon["body"])
        )
        return cls(
            key=content["prefix"],
            title=info["name"],
            maker=info["author"]["name"],
            licence=info["license"].get("spdx") or info["license"]["title"],
            category=info.get("category", ""),
            colour=bool(info.get("palette")),
            names=tuple(names),
            brands=brand_icons(content),
            prefixes=tuple(content.get("prefixes", ())),
            suffixes=tuple(content.get("suffixes", ())),
            left_out=left_out,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Icon:
    """One drawing with its caption and concept."""

    set: IconSet
    name: str
    caption: str
    concept: str

    @property
    def id(self) -> str:
        """`mdi:account-heart`, unique."""
        return f"{self.set.key}:{self.name}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Splits, and the number of icons left out, by reason."""

    splits: dict[str, list[Icon]]
    dropped: collections.Counter[str]


def make_plan(sets: Iterable[IconSet], listed: Mapping[str, Any]) -> Plan:
    """Makes captions, selects icons and splits them by concept.

    Args:
      sets: every set of the package.
      listed: `collections.json`.
    """
    sets = sorted(sets, key=lambda one: one.key)
    dropped: collections.Counter[str] = collections.Counter()
    captioned = _captioned(sets, listed, dropped)
    keys = concept_keys(caption for _, _, caption in captioned)
    icons = [Icon(one, name, caption, keys[caption]) for one, name, caption in captioned]
    icons = _one_a_maker(icons, dropped)
    return Plan(_split(icons, dropped), +dropped)


def number(*parts: str) -> float:
    """Hashes texts to a number in [0, 1)."""
    head = hashlib.sha256("\n".join(("ape_jax icons", *parts)).encode()).digest()[:8]
    return int.from_bytes(head, "big") / 2**64


def _captioned(
    sets: list[IconSet], listed: Mapping[str, Any], dropped: collections.Counter[str]
) -> list[tuple[IconSet, str, str]]:
    """Lists (set, name, caption) of all icons that have a caption."""
    brands = brand_captions({one.key: list(one.names) for one in sets if one.key in BRAND_SOURCES})
    found = []
    for one in sets:
        if reason := unused_set(one.key, listed):
            dropped[reason] += one.count
            continue
        dropped.update(one.left_out)
        cleaner = Cleaner(one.names, one.prefixes, one.suffixes)
        for name in one.names:
            caption = cleaner.caption(name)
            if reason := problem(caption):
                dropped[reason] += 1
            elif name in one.brands or is_brand(caption, brands):
                dropped["icons of brands in other sets"] += 1
            else:
                found.append((one, name, caption))
    return found


def _one_a_maker(icons: list[Icon], dropped: collections.Counter[str]) -> list[Icon]:
    chosen: dict[tuple[str, str], tuple[tuple[bool, float], Icon]] = {}
    for icon in icons:
        key = (icon.set.maker, icon.concept)
        rank = (not icon.set.colour, number("style", icon.id))
        if key not in chosen or rank < chosen[key][0]:
            chosen[key] = (rank, icon)
    dropped["further drawings of a concept by the same maker"] += len(icons) - len(chosen)
    return [icon for _, icon in chosen.values()]


def _split(icons: list[Icon], dropped: collections.Counter[str]) -> dict[str, list[Icon]]:
    drawn: dict[str, list[Icon]] = {}
    for icon in sorted(icons, key=lambda icon: number("drawing", icon.id)):
        drawn.setdefault(icon.concept, []).append(icon)
    splits: dict[str, list[Icon]] = {split: [] for split in SPLITS}
    for concept, drawings in sorted(drawn.items()):
        held_out = [icon for icon in drawings if icon.set.maker in HELD_OUT_MAKERS]
        seen = [icon for icon in drawings if icon.set.maker not in HELD_OUT_MAKERS]
        split = _split_of(concept, bool(held_out))
        used = held_out if split == "test_sets" else seen
        most = MOST_DRAWINGS if split == "train" else 1
        splits[split] += used[:most]
        dropped["further drawings of held-out makers"] += len(held_out) - (split == "test_sets")
        reason = (
            f"more than {MOST_DRAWINGS} drawings of a concept"
            if split == "train"
            else "further drawings of held-out concepts"
        )
        dropped[reason] += len(seen) - (0 if split == "test_sets" else len(used[:most]))
    return splits


def _split_of(concept: str, held_out: bool) -> str:
    """The split of a concept; `held_out` says whether a held-out maker draws it."""
    if held_out and number("test_sets", concept) < _TEST_SETS_SHARE:
        return "test_sets"
    u = number("concept", concept)
    if u < _TEST_SHARE:
        return "test"
    return "validation" if u < _TEST_SHARE + _VALIDATION_SHARE else "train"


def _is_animated(body: str) -> bool:
    return "<animate" in body or "<set" in body
