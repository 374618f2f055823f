"""A work directory: the run or study that it belongs to, its config and its summary."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from ape_jax import config as config_lib
from ape_jax.config import Config
from ape_jax.errors import UserError, path_text
from ape_jax.parallel import hosts
from ape_jax.runs.directory import recorded, summaries
from ape_jax.storage import atomic, disk, files

C = TypeVar("C", bound=Config)
Kind = Literal["run", "study"]
RECORDS: Mapping[Kind, str] = {"run": "config.json", "study": "study.json"}
"""The file that holds the config."""

AGAIN = "run the same command again, which goes on from what is saved"
"""What to do once a directory can be written again."""


def locate(workdir: str | os.PathLike[str], kind: Kind = "run") -> pathlib.Path:
    """The directory's absolute path.

    Raises:
      UserError: for a directory of the other kind, or a path that would lose checkpoints: a bucket,
        which would quietly become a local folder, or one with characters that the checkpoint
        library reads as a pattern.
    """
    written = path_text(workdir, "--workdir")
    if re.match(r"\w+://", written):
        raise UserError(f"--workdir: {written} is not a local path; write a local or mounted one")
    path = pathlib.Path(written).absolute()
    if bad := set("*?[]") & set(str(path)):
        raise UserError(
            f"--workdir: {str(path)!r} holds {min(bad)!r}, which the checkpoint library reads as a "
            "pattern; write a path without any of *?[]"
        )
    if kind == "run" and (path / RECORDS["study"]).exists():
        raise UserError(f"--workdir: {path} holds a study; name one of its runs, as in ape/seed0")
    if kind == "study" and (path / RECORDS["run"]).exists():
        raise UserError(f"--workdir: {path} holds a run, not a study; use a new work directory")
    return path


def read_config(path: pathlib.Path, kind: Kind = "run", config_class: type[C] = Config) -> C:
    """The resolved config that a work directory's run was started with.

    Args:
      path: the work directory.
      kind: whose config is asked for.
      config_class: what to read it as. Keys of `study`, which runs of earlier versions recorded,
        are left out of a `Config`.

    Raises:
      UserError: where there is none or it cannot be read.
    """
    record = path / RECORDS[kind]
    try:
        values = files.read_json(record, f"--workdir: {record}")
    except FileNotFoundError:
        raise UserError(f"--workdir: {path} holds no {kind} (no {record.name})") from None
    try:
        flat = recorded.found(path, values)
        return config_lib.resolve(config_lib.unflatten(flat), config_class)
    except UserError as error:
        raise UserError(f"--workdir: {record} is not of this version: {error}") from None
    except (ValueError, TypeError, AttributeError, KeyError, ArithmeticError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--workdir: {record} cannot be read: {reason}") from None


def read_summary(path: pathlib.Path, config: Config, kind: Kind = "run") -> dict[str, Any] | None:
    """The summary of a run of this config that has come to its end, else None.

    Raises:
      UserError: where the directory holds another config's run.
    """
    if not (path / RECORDS[kind]).exists() or not (path / summaries.FILE).exists():
        return None
    require_same(path, config, kind)
    summary, damage = summaries.read(path)
    if summary is None:
        hosts.say(f"{path / summaries.FILE} cannot be read ({damage}) and is made again")
    return summary


def recorded_digests(directory: str | os.PathLike[str]) -> Mapping[str, str]:
    """Digests of the pairs of a finished run, `train` and `eval/NAME`, where they are known."""
    summary, _ = summaries.read(locate(directory))
    return (summary or {}).get("digests", {})


def finished(path: pathlib.Path, config: Config) -> dict[str, Any]:
    """The summary of a run that has come to its end.

    Raises:
      UserError: where it has not, or the directory holds another config's run.
    """
    require_same(path, config)
    summary, damage = summaries.read(path)
    if summary is not None and (key := summaries.missing(summary)):
        damage = f"{path / summaries.FILE} has no {key!r}"
    if summary is None or damage:
        found = f"a damaged {summaries.FILE}: {damage}" if damage else f"no {summaries.FILE}"
        raise UserError(
            f"--workdir: {path} holds no run that has come to its end ({found}); run its training "
            "again, which goes on"
        )
    return summary


def write_summary(path: pathlib.Path, summary: Mapping[str, Any]) -> None:
    """Writes `summary.json`, on the first process: what a script reads at the end."""
    if hosts.is_first():
        with disk.write_errors(f"--workdir: {path / summaries.FILE}", again=AGAIN):
            atomic.write_json(path / summaries.FILE, summary)


def require_same(path: pathlib.Path, config: Config, kind: Kind = "run") -> None:
    """Refuses to go on with another config's run.

    A study may have other methods, seeds and sizes: each of its cells is held to its own config.

    Raises:
      UserError: naming the first key that differs.
    """
    before = recorded.absolute(config_lib.flatten(read_config(path, kind, type(config))))
    after = recorded.absolute(config_lib.flatten(config))
    harmless = config_lib.harmless(type(config))
    for key in before:
        if kind == "study" and key.startswith("study."):
            continue
        if before[key] != after[key] and key not in harmless:
            raise UserError(
                f"--workdir: {path} holds a {kind} of another config: {key} is {before[key]!r} "
                f"there and {after[key]!r} here; use a new work directory{_fork(path, kind)} or "
                "the old value"
            )


def _fork(path: pathlib.Path, kind: Kind) -> str:
    """How a new run takes up what this one has learnt, where it is a run."""
    return f" (with --config.start.run={path} it starts from this run)" if kind == "run" else ""
