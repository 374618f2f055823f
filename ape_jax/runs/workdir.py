"""A work directory: the run or study that it belongs to, its config and its summary."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeVar

from ape_jax import config as config_lib
from ape_jax.config import Config
from ape_jax.data.places import sources
from ape_jax.errors import UserError
from ape_jax.parallel import hosts
from ape_jax.storage import atomic, disk, lock

C = TypeVar("C", bound=Config)
Kind = Literal["run", "study"]
_RECORDS: Mapping[Kind, str] = {"run": "config.json", "study": "study.json"}
_SUMMARY = "summary.json"
_INSIDE = "workdir:"


def locate(workdir: str | os.PathLike[str], kind: Kind = "run") -> pathlib.Path:
    """The directory's absolute path.

    Raises:
      UserError: for a directory of the other kind, or a path that would lose checkpoints: a bucket,
        which would quietly become a local folder, or one with characters that the checkpoint
        library reads as a pattern.
    """
    written = os.fspath(workdir)
    if re.match(r"\w+://", written):
        raise UserError(f"--workdir: {written} is not a local path; write a local or mounted one")
    path = pathlib.Path(written).absolute()
    if bad := set("*?[]") & set(str(path)):
        raise UserError(
            f"--workdir: {str(path)!r} holds {min(bad)!r}, which the checkpoint library reads as a "
            "pattern; write a path without any of *?[]"
        )
    if kind == "run" and (path / _RECORDS["study"]).exists():
        raise UserError(f"--workdir: {path} holds a study; name one of its runs, as in ape/seed0")
    if kind == "study" and (path / _RECORDS["run"]).exists():
        raise UserError(f"--workdir: {path} holds a run, not a study; use a new work directory")
    return path


def claim(path: pathlib.Path, config: Config, kind: Kind = "run") -> bool:
    """Creates a work directory, or continues one that was made with the same config.

    Writes `config.json` (`study.json`). Keys that do not change the result may differ.

    Returns:
      Whether the directory was newly created.

    Raises:
      UserError: nothing can be written, or the directory holds a run of another config.
    """
    record = path / _RECORDS[kind]
    fresh = not record.exists()
    if not fresh:
        require_same(path, config, kind)
    elif (path / "checkpoints").exists():
        raise UserError(
            f"--workdir: {path} holds checkpoints but no config.json that says what they are of; "
            "put it back or use a new work directory"
        )
    with disk.write_errors(f"--workdir: {path}"):
        path.mkdir(parents=True, exist_ok=True)
        if hosts.is_first():
            atomic.write_json(record, _recorded(path, config_lib.flatten(config)))
    return fresh


@contextlib.contextmanager
def given_back(path: pathlib.Path, fresh: bool, kind: Kind = "run") -> Iterator[None]:
    """Makes a new directory free again if the block, which prepares a run, refuses it.

    Its config goes, and the folder of checkpoints while nothing is in it: without a config it would
    be taken for the checkpoints of an unknown run.
    """
    try:
        yield
    except UserError:
        if fresh and hosts.is_first():
            (path / _RECORDS[kind]).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # There is none, or it holds something.
                (path / "checkpoints").rmdir()
        raise


@contextlib.contextmanager
def held(path: pathlib.Path) -> Iterator[None]:
    """Keeps all other commands out of the directory, as `lock.exclusive` does.

    Raises:
      UserError: another process works in it.
    """
    if not hosts.is_first():
        yield
        return
    busy = f"--workdir: another process is working in {path}; wait for it or use a new one"
    with lock.exclusive(path / ".lock", busy):
        yield


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
    record = path / _RECORDS[kind]
    try:
        flat = _found(path, dict(json.loads(record.read_text(encoding="utf-8"))))
        return config_lib.resolve(config_lib.unflatten(flat), config_class)
    except FileNotFoundError:
        raise UserError(f"--workdir: {path} holds no {kind} (no {record.name})") from None
    except UserError as error:
        raise UserError(f"--workdir: {record} is not of this version: {error}") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"--workdir: {record} cannot be read: {error}") from None


def _recorded(path: pathlib.Path, flat: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they are recorded: pairs in the directory itself by their place in it.

    So the directory may be moved or copied with them.
    """
    inside = f"{path}{os.sep}"
    return _with_pairs(_absolute(flat), lambda spec: spec.replace(inside, _INSIDE))


def _absolute(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Values with absolute paths: elsewhere a file of the same name is not that of the run."""
    found = _with_pairs(flat, sources.absolute)
    for key in ("image.tower", "text.tower", "start.run", "start.model"):
        local = found.get(key)
        if isinstance(local, str) and local and os.path.exists(local):
            found[key] = os.path.abspath(local)
    return found


def _found(path: pathlib.Path, flat: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded values with the paths of pairs where the directory is now."""
    return _with_pairs(
        flat,
        lambda spec: spec.replace(_INSIDE, f"{path}{os.sep}"),
    )


def _with_pairs(flat: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    changed = dict(flat)
    if isinstance(flat.get("data.pairs"), str):
        changed["data.pairs"] = change(flat["data.pairs"])
    if isinstance(flat.get("data.eval"), Mapping):
        changed["data.eval"] = {
            name: change(spec) if isinstance(spec, str) else spec
            for name, spec in flat["data.eval"].items()
        }
    return changed


def read_summary(path: pathlib.Path, config: Config, kind: Kind = "run") -> dict[str, Any] | None:
    """The summary of a run of this config that has come to its end, else None.

    Raises:
      UserError: where the directory holds another config's run.
    """
    if not (path / _RECORDS[kind]).exists() or not (path / _SUMMARY).exists():
        return None
    require_same(path, config, kind)
    summary = _summary(path)
    if summary is None:
        hosts.say(f"{path / _SUMMARY} cannot be read and is made again")
    return summary


def _summary(path: pathlib.Path) -> dict[str, Any] | None:
    try:
        summary = json.loads((path / _SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) and summary else None


def recorded_digests(directory: str | os.PathLike[str]) -> Mapping[str, str]:
    """Digests of the pairs of a finished run, `train` and `eval/NAME`, where they are known."""
    summary = _summary(locate(directory)) or {}
    found = summary.get("digests")
    return found if isinstance(found, dict) else {}


def finished(path: pathlib.Path, config: Config) -> dict[str, Any]:
    """The summary of a run that has come to its end.

    Raises:
      UserError: where it has not, or the directory holds another config's run.
    """
    require_same(path, config)
    summary = _summary(path)
    if summary is None:
        found = "a damaged" if (path / _SUMMARY).exists() else "no"
        raise UserError(
            f"--workdir: {path} holds no run that has come to its end ({found} {_SUMMARY}); run "
            "its training again, which goes on"
        )
    return summary


def write_summary(path: pathlib.Path, summary: Mapping[str, Any]) -> None:
    """Writes `summary.json`, on the first process: what a script reads at the end."""
    if hosts.is_first():
        with disk.write_errors(f"--workdir: {path}"):
            atomic.write_json(path / _SUMMARY, summary)


def require_same(path: pathlib.Path, config: Config, kind: Kind = "run") -> None:
    """Refuses to go on with another config's run.

    A study may have other methods, seeds and sizes: each of its cells is held to its own config.

    Raises:
      UserError: naming the first key that differs.
    """
    before = _absolute(config_lib.flatten(read_config(path, kind, type(config))))
    after, harmless = _absolute(config_lib.flatten(config)), config_lib.harmless(type(config))
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
