"""Compiled programs that are kept between processes."""

from __future__ import annotations

import jax

from ape_jax.errors import UserError
from ape_jax.storage import disk


def keep() -> None:
    """Keeps compiled programs in the cache folder, so that another process need not compile them.

    Nothing changes where the user has named a place, `jax_compilation_cache_dir`, or the folder
    cannot be written.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    try:
        directory = disk.cache_dir() / "xla"
        directory.mkdir(parents=True, exist_ok=True)
    except (UserError, OSError):
        return  # It only saves time.
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
