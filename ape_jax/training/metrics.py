"""What a run writes down: JSON lines and TensorBoard events."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Mapping

from ape_jax.parallel import hosts
from ape_jax.storage import atomic


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
        atomic.write_text(path, "".join(_lines(path, resume_step)))
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=resume_step + 1)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """One JSON line `{"step": step, **scalars}` and the same to TensorBoard."""
        if self._file is None:
            return
        values = {name: float(value) for name, value in scalars.items()}
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes both files."""
        if self._file is not None:
            self._file.close()
            self._board.close()


def read(workdir: pathlib.Path) -> list[dict[str, float]]:
    """What a run has written so far, in its order; empty before the first line."""
    return [json.loads(line) for line in _lines(workdir / "metrics.jsonl", sys.maxsize)]


def _lines(path: pathlib.Path, last_step: int) -> list[str]:
    """The lines up to a step; one that a kill or a power cut spoilt is dropped."""
    if not path.exists():
        return []
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= last_step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            hosts.say(f"{path}: a line that cannot be read was dropped")
    return kept
