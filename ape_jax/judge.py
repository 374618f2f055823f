"""clip_benchmark's own command on a run: `ape-jax judge eval --model DIR --dataset D`."""

from __future__ import annotations

import sys

from ape_jax.errors import UserError
from ape_jax.terminal import command
from ape_jax.terminal.flags import flag_values

FLAGS = flag_values()


def main() -> None:
    """Hands the command line to clip_benchmark, which prints and writes the result."""
    if not sys.argv[1:]:
        raise UserError(
            "expected `eval --model DIR --dataset NAME`; ape-jax judge --help says more"
        )
    from ape_jax.judges import in_clip_benchmark

    in_clip_benchmark.run(sys.argv[1:])


if __name__ == "__main__":
    # All other flags are clip_benchmark's: `eval --help` shows them.
    asks_us = sys.argv[1:2] in (["--help"], ["-h"])
    command.run(main, argv=sys.argv[: 2 if asks_us else 1])
