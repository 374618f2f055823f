"""`--help-config [PATTERN]`: config keys by group, and the names that some of them take."""

from __future__ import annotations

from collections.abc import Mapping

from ape_jax.config import help as config_help
from ape_jax.config.experiment import Config
from ape_jax.data.formats.registry import FORMATS
from ape_jax.errors import UserError
from ape_jax.towers.family import FAMILIES


def text(pattern: str = "", kind: type[Config] = Config) -> str:
    """The page for a terminal.

    Args:
      pattern: part of a key or of its explanation; "" for everything.
      kind: the class whose keys they are.

    Raises:
      UserError: where no key matches.
    """
    rows = {row.key for row in config_help.rows(pattern, kind)}
    if not rows:
        raise UserError(f"--help-config: no key matches {pattern!r}; leave it out to see all keys")
    parts = [config_help.text(pattern, kind)]
    for key, names in _names().items():
        if key in rows:
            lines = [f"  {name:17}{title}" for name, title in names.items()]
            parts.append(f"{key} takes:\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _names() -> Mapping[str, Mapping[str, str]]:
    """By key, what it takes and what that is."""
    towers = {
        f"{kind}.tower": {
            name: family.models for name, family in FAMILIES.items() if family.kind == kind
        }
        for kind in ("image", "text")
    }
    pairs = {name: pairs_format.spec for name, pairs_format in FORMATS.items()}
    return {**config_help.components(), **towers, "data.pairs": pairs}
