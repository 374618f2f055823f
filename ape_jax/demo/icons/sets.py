"""Selects sets and icons of the package: drawings of things, no logos, flags or emoji.

Left out are

* sets that the package hides (outdated copies) or does not list (withdrawn), and hidden icons;
* emoji sets: Twemoji and OpenMoji are what the emoji demo tests on, and the others draw the same
  concepts under the same names; without them the icons may train what the emoji test;
* logos and flags: names of brands and countries say nothing about what is seen. Whole sets by
  category or by `LOGO_SETS` and `FLAG_SETS`; in other sets icons that the set itself files under
  brands, and those whose caption is a name that at least three of `BRAND_SOURCES` or `BRANDS_ONLY`
  hold, but for `ORDINARY` words. "Apple" goes;
* animated drawings: their first frame is often empty.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping
from typing import Any

from ape_jax.demo.icons.names import Cleaner

LOGO_SETS = frozenset(
    "academicons catppuccin devicon devicon-line devicon-original devicon-plain fa-brands "
    "fa6-brands file-icons gcp k8s material-icon-theme skill-icons unjs vscode-icons".split()
)
FLAG_SETS = frozenset("cif circle-flags flag flagpack".split())
BRAND_SOURCES = frozenset(
    "bxl cib devicon devicon-plain entypo-social fa6-brands fa7-brands logos simple-icons "
    "skill-icons streamline-logos thesvg unjs".split()
)
# Old sets of several makers mix its logos with other icons.
BRANDS_ONLY = "fa7-brands"
_BRAND_USES = 3
_CATEGORIES = {"Logos": "icons of logo sets", "Emoji": "icons of emoji sets"}
# Also ordinary words, and mostly drawn as such outside of logo sets.
ORDINARY = frozenset(
    "abstract atom bamboo blender bluetooth box buffer capacitor chef circle cloud composer "
    "cucumber cursor discover drizzle drone eclipse edge element eraser flask foundation ghost "
    "harbor helm hive html jasmine json lighthouse line matrix mermaid meteor mix passport pocket "
    "polygon progress puppet railway remix rocket rss shell shortcut signal sketch snowflake "
    "spectrum spotlight spring square steam stylus svg treehouse usb vault windows xml zoom".split()
)
_BRAND_CATEGORY = re.compile(r"brand|logo|social ?medias?$|^flags$", re.I)
# "github circle" is a logo as well.
_SHAPES = frozenset("circle circular square box round rect icon letter sign social".split())


def unused_set(key: str, listed: Mapping[str, Any]) -> str | None:
    """Says why a whole set is left out; None if it is used.

    Args:
      key: the set's key, "mdi".
      listed: the package's list of sets, `collections.json`.
    """
    if key not in listed or listed[key].get("hidden"):
        return "icons of sets that the package hides"
    if key in FLAG_SETS:
        return "icons of flag sets"
    if key in LOGO_SETS:
        return "icons of logo sets"
    return _CATEGORIES.get(listed[key].get("category"))


def brand_icons(icon_set: Mapping[str, Any]) -> frozenset[str]:
    """Finds the names that a set itself files under brands, logos or flags."""
    categories = icon_set.get("categories", {})
    return frozenset(
        name
        for category, names in categories.items()
        if _BRAND_CATEGORY.search(category)
        for name in names
    )


def brand_captions(names: Mapping[str, list[str]]) -> frozenset[str]:
    """Collects captions that are names of brands.

    Args:
      names: the icons' names in each of `BRAND_SOURCES`.
    """
    uses: collections.Counter[str] = collections.Counter()
    for key, used in names.items():
        cleaner = Cleaner(used, suffixes=("wordmark", "icon", "logo", "dark", "light", "plain"))
        captions = {cleaner.caption(name) for name in used}
        uses.update(captions)
        if key == BRANDS_ONLY:
            uses.update({caption: _BRAND_USES for caption in captions})
    found = {caption for caption, count in uses.items() if caption and count >= _BRAND_USES}
    return frozenset(found - ORDINARY)


def is_brand(caption: str, brands: frozenset[str]) -> bool:
    """Says whether a caption is that of a logo.

    >>> brands = frozenset({"github", "box"})
    >>> [is_brand(c, brands) for c in ("github circle", "brand atom", "box", "open box", "circle")]
    [True, True, True, False, False]
    """
    words = caption.split()
    if {"brand", "brands", "logo", "logos"} & set(words):
        return True
    bare = " ".join(word for word in words if word not in _SHAPES)
    return caption in brands or bare in brands
