"""`ape-jax demo [--only NAME]`: fetches the demo assets, or says that they are there.

The icons are large and take minutes to draw, so they are made when asked for by name. So are the
emoji of Noto, which come by npm, and the variants on which numbered partitions train.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ape_jax.demo import cache, prompts
from ape_jax.demo.emoji import further
from ape_jax.demo.emoji import pairs as emoji
from ape_jax.demo.icons import pairs as icons
from ape_jax.demo.towers import assets
from ape_jax.errors import UserError
from ape_jax.terminal import stdout

_ASSETS: dict[str, Callable[[], Path]] = {
    **{name: lambda name=name: assets.tower_dir(name) for name in assets.TOWERS},
    "emoji": emoji.prepare_all,
    "prompts": prompts.prepare,
    "icons": icons.prepare,
    "noto": further.prepare_noto,
    "emoji_variants": further.prepare_variants,
}
_ON_REQUEST = ("icons", "noto", "emoji_variants")


def main(arguments: list[str] | None = None) -> int:
    """Makes what is asked for and prints a line on each; returns the exit status."""
    parser = argparse.ArgumentParser(prog="ape-jax demo", description=__doc__)
    parser.add_argument(
        "--only", choices=_ASSETS, action="append", help="fetch this alone (may be repeated)"
    )
    usual = [name for name in _ASSETS if name not in _ON_REQUEST]
    chosen = parser.parse_args(arguments).only or usual
    started = time.monotonic()
    print(f"demo assets in {cache.cache_dir()}", flush=True)
    total = 0
    for name in chosen:
        began = time.monotonic()
        try:
            directory = _ASSETS[name]()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
        total += size
        print(f"{name:10} {size / 1e6:6.1f} MB  {time.monotonic() - began:6.1f} s  {directory}")
        sys.stdout.flush()
    print(f"{total / 1e6:.1f} MB in {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    with stdout.written():
        sys.exit(main())
