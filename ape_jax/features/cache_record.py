"""Content of `cache.json`, and the most similar cache that is not used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ape_jax.errors import UserError
from ape_jax.features.fingerprint import Fingerprint
from ape_jax.storage import sealed

_SHOWN = 4  # Differences in one line.


def contents(fingerprint: Fingerprint) -> dict[str, Any]:
    """Makes the content of `cache.json`."""
    return {
        "kind": fingerprint.kind,
        "parts": dict(fingerprint.parts),
        "digest": fingerprint.digest,
        # For people; the same features may be requested under other names.
        "pairs": fingerprint.pairs,
        "tower": fingerprint.tower,
    }


def describe_nearest(root: Path, fingerprint: Fingerprint) -> str:
    """Describes the most similar cache that is not used, in one line; '' if there is none.

    Args:
      root: directory of all caches.
      fingerprint: fingerprint of the requested features.
    """
    others = sorted(
        ((fingerprint.differences(value["parts"]), path) for path, value in _of(root, fingerprint)),
        key=lambda item: (len(item[0]), item[1]),
    )
    if not others:
        return ""
    differences, path = others[0]
    more = len(differences) - _SHOWN
    shown = "; ".join(differences[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
    also = f" (nor {len(others) - 1} others)" if len(others) > 1 else ""
    return f"not used: {path}{also}, which differs in {shown}"


def _of(root: Path, fingerprint: Fingerprint) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    same = (fingerprint.kind, fingerprint.pairs, fingerprint.tower)
    for record in root.glob("*/cache.json"):
        try:
            value = sealed.read(record)
            if (value["kind"], value["pairs"], value["tower"]) != same:
                continue
        except (UserError, OSError, KeyError):
            continue  # Damaged: reported when that cache itself is requested.
        if value["digest"] != fingerprint.digest:
            yield record.parent, value
