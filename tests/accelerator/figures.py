"""Figures: one JSON line each as they come, and a table of all at the end."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ape_jax.terminal.tables import markdown

MACHINE = "machine"  # The figure that names the device and the versions.


@dataclasses.dataclass(kw_only=True)
class Figures:
    """Prints the figures of one part.

    Attributes:
      part: its name, such as 'correct/losses'.
      write: takes one line.
    """

    part: str
    write: Callable[[str], None] = lambda line: print(line, flush=True)

    def measured(
        self, name: str, value: float | str, unit: str, *, beside: Mapping[str, Any] | None = None
    ) -> None:
        """Prints what is right or wrong by nothing.

        Args:
          name: of the figure, such as 'vit_l14 bf16, 256 images'.
          value: a number, or a word.
          unit: such as 'images/s'.
          beside: other figures of the same run, such as {'torch compiled': 812.0}.
        """
        self._line(name=name, value=value, unit=unit, beside=dict(beside or {}))

    def checked(
        self,
        name: str,
        value: float,
        *,
        bound: float,
        unit: str = "",
        beside: Mapping[str, Any] | None = None,
    ) -> bool:
        """Prints a difference, which is right up to `bound`; NaN is wrong.

        Args:
          name: of what is compared, such as 'bert bf16'.
          value: the difference.
          bound: the largest that is right.
          unit: such as 'of the largest value'.
          beside: other figures of the same run, such as {'torch': 3e-3}.

        Returns:
          Whether it is right.
        """
        right, value = bool(value <= bound), float(value)
        more = {"bound": float(bound), "right": right, "beside": dict(beside or {})}
        self._line(name=name, value=value, unit=unit, **more)
        return right

    def holds(self, name: str, right: bool, why: str = "") -> bool:
        """Prints whether something holds, and `why` where it does not; returns `right`."""
        self._line(name=name, value="" if right else why, unit="", right=bool(right))
        return bool(right)

    def left_out(self, name: str, why: str) -> None:
        """Prints what this machine cannot show, and why."""
        self._line(name=name, value="", unit="", left_out=why)

    def _line(self, **found: Any) -> None:
        self.write(json.dumps({"part": self.part, **found}))


def say(words: str) -> None:
    """Prints progress, which goes to the log."""
    print(words, file=sys.stderr, flush=True)


def wrong(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of what is not right, with their parts."""
    return [f"{x['part']}: {x['name']}" for x in lines if x.get("right") is False]


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """All figures in Markdown, a row each, below the machines that they are of."""
    machines = dict.fromkeys(str(x["value"]) for x in lines if x["name"] == MACHINE)
    rows = [_row(x) for x in lines if x["name"] != MACHINE]
    made = markdown(["part", "figure", "value", "beside", ""], rows)
    return "\n".join([*machines, "", made])


def _row(line: Mapping[str, Any]) -> list[str]:
    verdict = {True: "right", False: "WRONG", None: ""}[line.get("right")]
    beside = [f"{name} {_number(x)}" for name, x in line.get("beside", {}).items()]
    if "bound" in line:
        beside.append(f"at most {_number(line['bound'])}")
    shown = f"{_number(line['value'])} {line['unit']}".strip()
    return [line["part"], line["name"], shown, "; ".join(beside), line.get("left_out", verdict)]


def _number(x: Any) -> str:
    if not isinstance(x, float):
        return str(x)
    return f"{x:,.1f}" if abs(x) >= 1000 else f"{x:.3g}"
