"""clip_benchmark's own command on a run: `python -m ape_jax.judge eval --model DIR --dataset D`."""

from __future__ import annotations

import sys

from ape_jax.judges import in_clip_benchmark
from ape_jax.terminal import command


def main() -> None:
    """Hands the command line to clip_benchmark, which prints and writes the result."""
    in_clip_benchmark.run(sys.argv[1:])


if __name__ == "__main__":
    # The flags are clip_benchmark's, of which absl knows none.
    command.run(main, argv=sys.argv[:1])
