"""What a checkpoint says of itself, sealed: towers, pairs, its step, and a hash of every array.

    {"checkpoint": {"meta": {...}, "sha256": {tree: {leaf: hash}}, "step": 200},
     "sha256 of the rest": "..."}

Checkpoints of earlier versions have the content of `meta` alone, the first of them without hashes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ape_jax.errors import UserError
from ape_jax.runs.checkpoints.hashes import Hashes
from ape_jax.storage import sealed

_CONTENT, _HASHES = "checkpoint", "sha256"


class Damaged(Exception):
    """A checkpoint holds other bytes than were written; the text says where."""


class NoneWhole(UserError):
    """Every checkpoint of a folder is damaged."""


class Unreadable(UserError):
    """A checkpoint cannot be read for a reason that is no damage, such as too little memory."""


def pack(meta: Mapping[str, Any], hashes: Hashes, step: int) -> dict[str, Any]:
    """The JSON that is written.

    Args:
      meta: towers and data by name and hash.
      hashes: of the arrays.
      step: of the checkpoint.
    """
    content = {"meta": dict(meta), _HASHES: hashes, "step": step}
    return sealed.seal({_CONTENT: content})


def unpack(found: Any, step: int) -> tuple[dict[str, Any], Hashes | None]:
    """What `pack` was given: `meta`, and the hashes, None where an earlier version wrote none.

    Args:
      found: the JSON that was read.
      step: that the checkpoint's folder names.

    Raises:
      Damaged: it is not as it was written, or the folder has another name.
    """
    if not isinstance(found, dict):
        raise Damaged("meta is damaged")
    if _CONTENT not in found and sealed.SEAL not in found and "text tower" in found:
        return {k: v for k, v in found.items() if k != _HASHES}, found.get(_HASHES)
    rest = sealed.unseal(found)
    if rest is None:
        raise Damaged("meta is damaged")
    content = rest[_CONTENT]
    if content["step"] != step:
        raise Damaged(f"it is of step {content['step']} by its content")
    return content["meta"], content[_HASHES]
