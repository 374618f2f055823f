"""The demo's part of the cache folder: its assets, and what is said about them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

from ape_jax.errors import UserError, install
from ape_jax.storage import disk, lock
from ape_jax.storage.disk import cache_dir


def make_once(
    name: str, build: Callable[[Path], None], is_complete: Callable[[Path], bool]
) -> Path:
    """Builds an asset's directory unless it is complete.

    Args:
      name: of the directory in the cache folder, as in "towers/vit_s14".
      build: fills the empty directory that it is given.
      is_complete: a quick check of a finished directory.

    Returns:
      The directory.

    Raises:
      UserError: the cache cannot be written, or `build` raised it.
    """
    root = cache_dir()
    remedy = "set APE_JAX_CACHE to another directory"
    with disk.write_errors(f"The demo cache {root}", remedy):
        return lock.make_once(root / name, build, is_complete, locks=root / "locks", say=say)


def require_space(size: int, what: str) -> None:
    """Raises UserError unless `size` bytes are free; `what` begins the sentence ("X needs")."""
    remedy = "set APE_JAX_CACHE to a directory on another disk"
    disk.require_space(cache_dir(), size, what, remedy)


def require_renderer() -> None:
    """Raises UserError unless what draws OpenMoji and the icons is installed."""
    try:
        importlib.import_module("resvg_py")
    except ImportError:
        raise UserError(
            f"The demo draws with resvg, which is not installed; run {install('demo')}"
        ) from None


def say(line: str) -> None:
    """Prints one line of progress on stderr."""
    print(f"ape_jax.demo: {line}", file=sys.stderr, flush=True)
