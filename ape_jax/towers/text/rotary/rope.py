"""Settings of rotary positions in a config.json, as transformers reads them."""

from __future__ import annotations

from collections.abc import Mapping

from ape_jax.towers.family import Fields


def theta(fields: Fields, default: float, *, layers: str = "", older: str = "rope_theta") -> float:
    """The base of the angles.

    Args:
      fields: the config.
      default: where nothing is said.
      layers: the kind of layers, where each has its own ("full_attention").
      older: the key that files had before `rope_parameters`.

    Raises:
      UserError: for angles that are scaled for longer texts.
    """
    given = fields.values.get("rope_parameters") or {}
    if not isinstance(given, Mapping):
        raise fields.error(f"'rope_parameters' is a {type(given).__name__}; write an object")
    given = given.get(layers) or {} if layers and layers in given else given
    scaling = fields.values.get("rope_scaling") or {}
    if not isinstance(given, Mapping) or not isinstance(scaling, Mapping):
        raise fields.error("'rope_parameters' and 'rope_scaling' must be objects")
    kind = given.get("rope_type") or scaling.get("rope_type") or scaling.get("type") or "default"
    if kind != "default" or given.get("partial_rotary_factor", 1) != 1:
        raise fields.error(
            f"rotary positions of type {kind!r} are not supported here; name the tower as "
            "torch:hf:... to have transformers encode with it"
        )
    inner = Fields(given, f"{fields.label}, 'rope_parameters'")
    return inner.number("rope_theta", fields.number(older, default))
