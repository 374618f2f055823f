"""Where everything lies that is kept between runs: demo assets, programs, features."""

from __future__ import annotations

import os
from pathlib import Path

from ape_jax.errors import UserError


def cache_dir() -> Path:
    """Returns the cache folder; it may not exist yet.

    `$APE_JAX_CACHE` if set, else `ape_jax` in `$XDG_CACHE_HOME` or `~/.cache`.

    Raises:
      UserError: where there is no home directory.
    """
    chosen = os.environ.get("APE_JAX_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):
        return Path(base) / "ape_jax"
    try:
        return Path.home() / ".cache" / "ape_jax"
    except RuntimeError:  # No HOME, and a user without an entry.
        raise UserError("APE_JAX_CACHE: there is no home directory; set it to a folder") from None
