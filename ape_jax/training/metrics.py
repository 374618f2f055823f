"""What a run writes down: JSON lines and TensorBoard events."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from ape_jax.parallel import hosts
from ape_jax.runs.directory import workdir as workdir_lib
from ape_jax.storage import atomic, disk, files


class MetricWriter:
    """Writes scalars to `metrics.jsonl` and to TensorBoard event files; only on the first process.

    A resumed run drops the lines after its checkpoint, so that every step stands in the file once.

    Args:
      workdir: where `metrics.jsonl` and `tensorboard/` go.
      resume_step: lines of later steps are dropped.
    """

    def __init__(self, workdir: pathlib.Path, resume_step: int = 0):
        self._file, self._board = None, None
        if not hosts.is_first():
            return
        from tensorboardX import SummaryWriter  # Half a second that `import ape_jax` need not pay.

        path = workdir / "metrics.jsonl"
        self._writing = partial(disk.write_errors, f"--workdir: {path}", again=workdir_lib.AGAIN)
        with self._writing():
            atomic.write_text(path, "".join(_lines(path, resume_step)))
            self._file = path.open("a", encoding="utf-8")
            # Without a bound: after an error of its thread nobody would take from the queue.
            board = str(workdir / "tensorboard")
            self._board = SummaryWriter(board, purge_step=resume_step + 1, max_queue=0)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """One JSON line `{"step": step, **scalars}` and the same to TensorBoard."""
        if self._file is None or self._board is None:
            return
        values = {name: float(value) for name, value in scalars.items()}
        with self._writing():
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def sync(self) -> None:
        """Waits until all lines are on the disk.

        Called before a checkpoint is saved: a power cut would else leave it without its lines.
        """
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flushes and closes both files."""
        if self._file is not None and self._board is not None:
            with self._writing():
                self._file.close()
                self._board.close()


def read(workdir: pathlib.Path) -> list[dict[str, float]]:
    """What a run has written so far, in its order; empty before the first line.

    A line that is being written is left out.

    Args:
      workdir: of the run.

    Raises:
      UserError: the file is no plain file, or larger than any run writes.
    """
    return [entry for _, entry in _entries(workdir / "metrics.jsonl")]


def _lines(path: pathlib.Path, last_step: int) -> list[str]:
    """The lines up to a step; one that a kill or a power cut spoilt is dropped."""
    return [line for line, entry in _entries(path) if entry["step"] <= last_step]


def _entries(path: pathlib.Path) -> Iterator[tuple[str, dict[str, float]]]:
    """The lines with the values in them; says how many cannot be read."""
    try:
        content = files.read_bytes(path, f"--workdir: {path}")
    except FileNotFoundError:
        return
    *lines, _ = content.split(b"\n")  # What is not ended by a newline is half a line.
    dropped = 0
    for line in lines:
        try:
            entry = files.parse_json(line.decode(), str(path))
        except ValueError:
            entry = {}
        if _is_sound(entry):
            yield f"{line.decode()}\n", entry
        else:
            dropped += 1
    if dropped:
        found = "a line that cannot be read was"
        if dropped > 1:
            found = f"{dropped:,} lines that cannot be read were"
        hosts.say(f"{path}: {found} dropped")


def _is_sound(entry: Mapping[str, Any]) -> bool:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in entry.values())
    return numbers and isinstance(entry.get("step"), int)
