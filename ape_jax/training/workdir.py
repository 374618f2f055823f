"""A work directory: whose run it is, and small files that are never half-written."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from ape_jax import config as config_lib
from ape_jax.errors import UserError
from ape_jax.parallel import hosts


def claim(workdir: str | os.PathLike[str], config: ml_collections.ConfigDict) -> pathlib.Path:
    """Makes the directory, or takes up the run in it if that has the same config.

    Writes `config.json`. Keys that do not change the result (`config.HARMLESS`) may differ.

    Raises:
      UserError: where nothing can be written, or the directory holds another config's run.
    """
    path = pathlib.Path(workdir)
    record = path / "config.json"
    if record.exists():
        require_same(path, config)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if hosts.is_first():
            write_json(record, config_lib.flatten(config))
    except OSError as error:
        raise UserError(f"--workdir: cannot write in {path}: {error.strerror}") from error
    return path


def read_config(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The resolved config that a work directory's run was started with.

    Raises:
      UserError: where there is none or it cannot be read.
    """
    record = workdir / "config.json"
    try:
        flat = dict(json.loads(record.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"--workdir: {workdir} holds no run (no config.json)") from None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"--workdir: {record} cannot be read: {error}") from None
    return config_lib.resolve(config_lib.unflatten(flat))


def write_json(path: pathlib.Path, value: Mapping[str, Any]) -> None:
    """Writes through a temporary name, so that a reader never sees half a file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def require_same(path: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Refuses to go on with another config's run.

    Raises:
      UserError: naming the first key that differs.
    """
    before, after = config_lib.flatten(read_config(path)), config_lib.flatten(config)
    for key in before:
        if before[key] != after[key] and key not in config_lib.HARMLESS:
            raise UserError(
                f"--workdir: {path} holds a run of another config: {key} is {before[key]!r} there "
                f"and {after[key]!r} here; use a new work directory or the old value"
            )
