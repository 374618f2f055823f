"""What a tower is, and how near it comes to its own library.

ape-jax towers SPEC [--kind text] [--check]
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from absl import flags

from ape_jax.errors import UserError
from ape_jax.terminal import command
from ape_jax.terminal.flags import flag_values

if TYPE_CHECKING:
    from ape_jax.towers.tower import Kind

FLAGS = flag_values("json")
BARE = "tower"
_TOWER = flags.DEFINE_string(
    "tower", "", "hf:ORG/NAME, a directory, torch:hf:NAME ...", flag_values=FLAGS
)
_KIND = flags.DEFINE_enum(
    "kind",
    "",
    ["", "image", "text"],
    "Which tower, where a directory holds two.",
    flag_values=FLAGS,
)
_CHECK = flags.DEFINE_bool(
    "check", False, "Compare with its own library, in torch.", flag_values=FLAGS
)
_INPUTS = flags.DEFINE_list(
    "inputs",
    [],
    "Images or texts to compare on, with commas between; by default drawings, or ten texts.",
    flag_values=FLAGS,
)


def main() -> None:
    """Describes the tower, compares it where that is asked for, and prints both."""
    from ape_jax.towers.show import check, description

    if not _TOWER.value:
        raise UserError("expected a tower, hf:facebook/dinov2-small or a directory; found none")
    kinds: dict[str | None, Kind] = {"image": "image", "text": "text"}
    found = description.describe(_TOWER.value, kinds.get(_KIND.value))
    text = description.lines(found)
    differences = []
    if _CHECK.value:
        differences = check.check(_TOWER.value, found["kind"], _INPUTS.value)
        text += "".join(
            f"\n{d.what} beside its own library: largest difference {d.largest:.1e}"
            for d in differences
        )
    command.output(found | {"check": [dataclasses.asdict(d) for d in differences]}, text)
    wrong = [d.what for d in differences if not d.fits]
    if wrong:
        raise UserError(
            f"{_TOWER.value}: {' and '.join(wrong)} differ from those of its own library by more "
            "than rounding; please report it with this output"
        )


if __name__ == "__main__":
    command.run(main)
