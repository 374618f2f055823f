"""Runs on a disk that fails at one moment: full, read-only, or with the work directory gone.

A script of its own, started in a mount namespace where it may mount: it takes a config, a folder
for the disk, and the cases (changes of the config,
moment, action) as JSON, and prints what became of each as a JSON line.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from unittest import mock

from absl import logging

from ape_jax import config as config_lib
from ape_jax import pages
from ape_jax.errors import UserError
from ape_jax.runs import restore
from ape_jax.runs.directory import claim
from ape_jax.training import closed, loop, summary
from ape_jax.training.records import left_out

DISK = pathlib.Path(sys.argv[2])
RUN = DISK / "runs" / "mine"
FILL = DISK / "fill"


def full() -> None:
    """Leaves not a byte free."""
    with FILL.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)


def read_only() -> None:
    """A second mount over the first: files that are open for writing stay so."""
    subprocess.run(["mount", "--bind", "-o", "ro", str(DISK), str(DISK)], check=True)


def removed() -> None:
    """As by `rm -rf`."""
    shutil.rmtree(RUN)


def replaced() -> None:
    """By another run of the same name."""
    shutil.rmtree(RUN)
    (RUN / "checkpoints").mkdir(parents=True)


def heal(action: str) -> None:
    """Undoes what the action did, as far as a user can."""
    if action == "read_only":
        subprocess.run(["umount", "-l", str(DISK)], check=True)
    FILL.unlink(missing_ok=True)
    if action in ("removed", "replaced"):
        shutil.rmtree(RUN, ignore_errors=True)


ACTIONS = {action.__name__: action for action in (full, read_only, removed, replaced)}


@contextlib.contextmanager
def at(moment: str, action: str):
    """Lets the action happen once, at the moment."""
    done = []

    def act():
        if not done:
            done.append(moment)
            ACTIONS[action]()

    def before(module, name):
        original = getattr(module, name)

        def wrapped(*args, **kwargs):
            act()
            return original(*args, **kwargs)

        return mock.patch.object(module, name, wrapped)

    if moment.startswith("step"):
        original, step = loop.open_feed, int(moment.split()[1])

        def open_feed(run):
            feed = original(run)
            made = feed.blocks

            def blocks(start, stop):
                for span, block in made(start, stop):
                    if span.first + span.stop >= step:
                        act()
                    yield span, block

            feed.blocks = blocks
            return feed

        patch = mock.patch.object(loop, "open_feed", open_feed)
    else:
        patch = {
            "start": lambda: contextlib.nullcontext(act()),
            "prepared": lambda: before(loop, "_prepared"),
            "left out": lambda: before(left_out, "write"),
            "evaluation": lambda: before(loop, "evaluate_all"),
            "closed evaluation": lambda: before(closed, "evaluate_all"),
            "summary": lambda: before(summary, "write"),
            "report": lambda: contextlib.nullcontext(),
            "report written": lambda: before(pages.run.html, "document"),
        }[moment]()
    with patch:
        yield act


@contextlib.contextmanager
def stderr_in(file):
    """Everything that any thread or library of this process says."""
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


def outcome(config, moment: str, action: str) -> dict:
    """What a run says, leaves and does when it is started again."""
    found = {"moment": moment, "action": action, "error": None}
    with tempfile.TemporaryFile("w+") as said:
        try:
            with stderr_in(said), at(moment, action) as act:
                loop.train_and_evaluate(config, RUN)
                if moment.startswith("report"):
                    if moment == "report":
                        act()
                    pages.write(RUN)
        except UserError as error:
            found["error"] = str(error)
        except BaseException as error:
            found["error"] = f"{type(error).__name__}: {error}"[:1500]
            found["bug"] = True
        said.seek(0)
        found["said"] = said.read()
    found["partial"] = sorted(path.name for path in DISK.rglob(".*.partial"))
    found["kept"] = sorted(claim.work(RUN))
    heal(action)
    try:
        with open(os.devnull, "w") as nowhere, stderr_in(nowhere):
            found["step"] = loop.train_and_evaluate(config, RUN)["step"]
            restore.restore(RUN)
            if moment.startswith("report"):
                pages.write(RUN)
    except BaseException as error:
        found["again"] = f"{type(error).__name__}: {error}"[:1500]
    shutil.rmtree(DISK / "runs", ignore_errors=True)
    return found


def main() -> None:
    logging.set_verbosity(logging.FATAL)  # As commands do.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(DISK)], check=True)
    flat = json.loads(pathlib.Path(sys.argv[1]).read_text())
    config = config_lib.resolve(config_lib.unflatten(flat))
    for changes, moment, action in json.loads(sys.argv[3]):
        changed = config_lib.resolve({**config_lib.flatten(config), **changes})
        print(json.dumps(outcome(changed, moment, action)), flush=True)


if __name__ == "__main__":
    main()
