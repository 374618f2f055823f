"""Licence and gate of a tower, as the model card beside it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ape_jax.errors import UserError
from ape_jax.storage import files
from ape_jax.towers.files import hub, sources

_MOST_BYTES = 4 << 20


def read(spec: str) -> dict[str, str]:
    """Licence, gate and base model that a tower's card names; what it does not name is left out.

    Args:
      spec: of the tower.

    Returns:
      Texts by name; of a card that is not there, none.
    """
    settings = _front_matter(_text(spec))
    found = {}
    if licence := settings.get("license"):
        named = settings.get("license_name") if licence == "other" else licence
        found["licence"] = " ".join(
            filter(None, (str(named or licence), settings.get("license_link")))
        )
    if any(key.startswith("extra_gated") for key in settings):
        found["gate"] = "its conditions have to be accepted on its page"
    if base := settings.get("base_model"):
        found["made from"] = ", ".join(base) if isinstance(base, list) else str(base)
    return found


def _text(spec: str) -> str:
    try:
        if spec.startswith("hf:"):
            path = hub.file(spec.removeprefix("hf:").partition("@")[0], "README.md")
        else:
            path = sources.resolve(spec) / "README.md"
        return files.read_bytes(path, most=_MOST_BYTES).decode(errors="replace")
    except (FileNotFoundError, UserError):  # Many directories have no card.
        return ""


def _front_matter(text: str) -> Mapping[str, Any]:
    """The YAML between the first two lines of dashes."""
    import yaml  # Of huggingface_hub's needs.

    parts = text.split("\n---", 1)
    if not text.startswith("---\n") or len(parts) < 2:
        return {}
    try:
        found = yaml.safe_load(parts[0].removeprefix("---\n"))
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    return found if isinstance(found, Mapping) else {}
