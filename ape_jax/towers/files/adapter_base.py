"""Directories that hold an adapter alone: its files over those of the model it was trained on.

PEFT saves an adapter without the weights under it and names them in `base_model_name_or_path`.
Readers of a tower take one directory; so the two are put together in the cache folder, by links.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

from ape_jax.storage import disk, lock


def overlay(adapter: Path, base: Path) -> Path:
    """A directory of links to the files of `base`, where `adapter` has the same, to those.

    Args:
      adapter: directory of the adapter.
      base: directory of the weights, config and whatever else the adapter's lacks.

    Returns:
      A directory in the cache folder.

    Raises:
      UserError: the cache folder cannot be written.
    """
    links = {
        entry.name: entry.resolve() for folder in (base, adapter) for entry in folder.iterdir()
    }
    lines = "".join(f"{name} {path}\n" for name, path in sorted(links.items()))
    root = disk.cache_dir()
    target = root / "adapters" / hashlib.sha256(lines.encode()).hexdigest()[:20]
    with disk.write_errors(f"The cache {root}", "set APE_JAX_CACHE to another directory"):
        return lock.make_once(
            target,
            partial(_link, links=links),
            lambda path: all((path / name).is_symlink() for name in links),
            locks=root / "locks",
            say=lambda line: None,
        )


def _link(target: Path, *, links: dict[str, Path]) -> None:
    for name, path in links.items():
        (target / name).symlink_to(path)
