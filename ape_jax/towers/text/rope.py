"""Rotary positions as a config.json describes them: the base, and how its angles are scaled.

A tower that was trained on short texts is made to read longer ones by other angles: linear
interpolation (arXiv 2306.15595), YaRN (2309.00071), and that of Llama 3.1 (2407.21783). All are
formulas over the frequencies, as in transformers' modeling_rope_utils.py. "dynamic" scales texts
alone that are longer than the positions of the config, which no tower here takes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32

from ape_jax.nn.positions import rotary_frequencies
from ape_jax.towers.family import Fields

THETA = 10000.0  # transformers' default.
_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
_YARN = (
    "factor",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "original_max_position_embeddings",
    "truncate",
)
KINDS = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": _LLAMA3,
    "yarn": _YARN,
}
"""How angles are scaled, by transformers' names, and the settings of each."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary positions of one kind of blocks; hashable.

    Attributes:
      theta: the base of the frequencies.
      kind: one of `KINDS`.
      settings: values of its settings by transformers' names.
    """

    theta: float = THETA
    kind: str = "default"
    settings: tuple[tuple[str, float | int], ...] = ()

    @property
    def strength(self) -> float:
        """A factor on the turned queries and keys."""
        return float(dict(self.settings).get("attention_factor", 1.0))

    def frequencies(self, width: int) -> tuple[float, ...]:
        """The angle by which each pair of channels turns from one position to the next.

        >>> Rope(kind="linear", settings=(("factor", 4.0),)).frequencies(2)
        (0.25,)

        Args:
          width: channels that are turned, two for each frequency.
        """
        plain, settings = rotary_frequencies(width, self.theta), dict(self.settings)
        if self.kind == "linear":
            plain = plain / np.float32(settings["factor"])
        elif self.kind == "llama3":
            plain = _llama3(plain, settings)
        elif self.kind == "yarn":
            plain = _yarn(plain, width, self.theta, settings)
        return tuple(float(angle) for angle in plain)

    def describe(self) -> dict[str, Any]:
        """The content of `rope_parameters` in a config.json."""
        return {"rope_type": self.kind, "rope_theta": self.theta, **dict(self.settings)}


def read(fields: Fields, *, positions: int, theta: float = THETA) -> Rope:
    """The rotary positions of a config.json whose blocks all have the same.

    Args:
      fields: the config.json; `rope_scaling` is an older name of `rope_parameters`.
      positions: `max_position_embeddings`.
      theta: the base, where nothing says it.

    Raises:
      UserError: for values that mean nothing, or a kind of scaling that is not supported.
    """
    theta = fields.number("rope_theta", theta)
    key = "rope_scaling" if fields.mapping("rope_scaling") else "rope_parameters"
    return read_section(section(fields, key), theta=theta, positions=positions)


def section(fields: Fields, key: str) -> Fields:
    """An object in a config.json; empty where it is absent.

    Raises:
      UserError: it is no object.
    """
    value = fields.values.get(key)
    if value is None:
        value = {}
    if not isinstance(value, Mapping):
        raise fields.error(f"{key!r} is {type(value).__name__}; write an object")
    return Fields(value, f"{fields.label}, {key!r}", parent=fields.parent)


def read_section(fields: Fields, *, theta: float, positions: int) -> Rope:
    """The rotary positions that an object such as `rope_parameters` describes.

    Args:
      fields: the object.
      theta: the base, where the object has none.
      positions: `max_position_embeddings` of the whole config.

    Raises:
      UserError: as `read`.
    """
    theta = fields.number("rope_theta", theta)
    if theta <= 1:
        raise fields.error(f"rope_theta is {theta}; write a number above 1, such as {THETA}")
    if fields.number("partial_rotary_factor", 1.0) != 1:
        raise fields.unsupported(
            "partial_rotary_factor is not 1; only heads that turn whole are read"
        )
    kind, settings = _kind(fields), {}
    if "original_max_position_embeddings" in KINDS[kind]:
        # The top level of the config comes first, as Phi 3 has it.
        above = Fields(fields.parent, fields.label)
        own = fields.integer("original_max_position_embeddings", positions)
        found = above.integer("original_max_position_embeddings", own)
        settings["original_max_position_embeddings"] = found
    if "factor" in KINDS[kind]:
        settings["factor"] = _positive(fields, "factor", _ratio(fields, kind, positions, settings))
    if kind == "llama3":
        _read_llama3(fields, settings)
    if kind == "yarn":
        _read_yarn(fields, settings)
    return Rope(theta=theta, kind=kind, settings=tuple(sorted(settings.items())))


def _kind(fields: Fields) -> str:
    """The kind of scaling, whose key has an older name, too."""
    named = [fields.values.get(key) for key in ("rope_type", "type")]
    kind = next((name for name in named if name is not None), "default")
    if kind not in list(KINDS):  # It may be a list itself.
        raise fields.unsupported(
            f"rope_type is {str(kind)[:40]!r}, and of rotary positions {', '.join(KINDS)} are "
            "supported"
        )
    return kind


def _ratio(
    fields: Fields, kind: str, positions: int, settings: Mapping[str, float | int]
) -> float | None:
    """YaRN's factor where the object has null for it; None where it must have one."""
    if kind != "yarn" or "factor" not in fields.values:
        return None
    return positions / settings["original_max_position_embeddings"]


def _positive(fields: Fields, key: str, default: float | None = None) -> float:
    value = fields.number(key, default)
    if value <= 0:
        raise fields.error(f"{key} is {value}; write a number above 0")
    return value


def _read_llama3(fields: Fields, settings: dict[str, float | int]) -> None:
    low = _positive(fields, "low_freq_factor")
    high = _positive(fields, "high_freq_factor")
    if high <= low:
        raise fields.error(f"high_freq_factor is {high}; write more than low_freq_factor, {low}")
    settings |= {"low_freq_factor": low, "high_freq_factor": high}


def _read_yarn(fields: Fields, settings: dict[str, float | int]) -> None:
    def grown(scale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    factor = settings["factor"]
    scale, of_all = fields.number("mscale", 0.0), fields.number("mscale_all_dim", 0.0)
    strength = grown(scale) / grown(of_all) if scale and of_all else grown(1.0)
    settings |= {
        "attention_factor": fields.number("attention_factor", strength),
        "beta_fast": _positive(fields, "beta_fast", 32.0),
        "beta_slow": _positive(fields, "beta_slow", 1.0),
        "truncate": fields.flag("truncate", True),
    }


def _llama3(
    plain: Float32[np.ndarray, " r"], settings: Mapping[str, float | int]
) -> Float32[np.ndarray, " r"]:
    """Slow angles divided by the factor, fast ones as they are, those between interpolated."""
    one = np.float32(1)
    factor, low, high, old = (np.float32(settings[key]) for key in _LLAMA3)
    length = np.float32(2 * math.pi) / plain
    share = (old / length - low) / (high - low)
    between = (one - share) * plain / factor + share * plain
    slow = np.where(length > old / low, plain / factor, plain)
    is_between = (length >= old / high) & (length <= old / low)
    return np.where(is_between, between, slow).astype(np.float32)


def _yarn(
    plain: Float32[np.ndarray, " r"], width: int, theta: float, settings: Mapping[str, float | int]
) -> Float32[np.ndarray, " r"]:
    """Angles divided by the factor, but for those that turn often within the old length."""

    def channel(turns: float) -> float:
        """Where angles turn so often within the old length."""
        old = settings["original_max_position_embeddings"]
        return width * math.log(old / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = channel(settings["beta_fast"]), channel(settings["beta_slow"])
    if settings["truncate"]:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    high = high + 0.001 if low == high else high
    places = np.arange(width // 2, dtype=np.float32)
    ramp = np.clip((places - np.float32(low)) / np.float32(high - low), 0, 1)
    kept = np.float32(1) - ramp
    return plain / np.float32(settings["factor"]) * (1 - kept) + plain * kept
