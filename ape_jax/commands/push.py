"""Putting a model on the hub from the command line."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from ape_jax.commands.export import say_missing
from ape_jax.errors import UserError
from ape_jax.exporters import verified
from ape_jax.exporters.publish import facts as card_facts
from ape_jax.exporters.publish import hub


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What a command line asks for.

    Attributes:
      export: directory of an export, or "".
      workdir: directory of a run, which is exported first, or "".
      format: what a run is exported in.
      repo: USER/NAME on the hub.
      private: whether a new repository is private.
      dry_run: whether nothing is sent.
      card: values of `terminal.card_flags`.
    """

    export: str
    workdir: str
    format: str
    repo: str
    private: bool
    dry_run: bool
    card: Mapping[str, tuple[str, ...]]


def push(request: Request) -> None:
    """Lists what goes to the hub, with sizes, and uploads it.

    Args:
      request: what is asked for.

    Raises:
      UserError: for a wrong flag, a folder that is no export, or a hub that refuses.
    """
    if bool(request.export) == bool(request.workdir):
        raise UserError("--export: write the directory of an export, or --workdir for a run's own")
    if not request.repo:
        raise UserError("--repo: expected USER/NAME, found nothing")
    hub.check_repo(request.repo)
    facts = card_facts.from_flags(request.card)
    with _exported(request) as folder:
        upload = hub.gather(folder, request.repo, facts)
        print("\n".join(upload.lines()))
        say_missing(upload.missing)
        if request.dry_run:
            print(f"nothing was sent to {request.repo} (--dry_run)")
            return
        print(f"pushed: {hub.push(upload, request.repo, request.private)}")


@contextlib.contextmanager
def _exported(request: Request) -> Iterator[Path]:
    if request.export:
        yield Path(request.export)
        return
    with tempfile.TemporaryDirectory(prefix="ape_jax_push_") as made:
        name = request.repo.rpartition("/")[2]
        yield verified.export(request.workdir, Path(made) / name, request.format)
