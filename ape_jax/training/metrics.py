"""What a run writes down: JSON lines and TensorBoard events."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping

from ape_jax.parallel import hosts


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
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= resume_step]
        path.write_text("".join(kept), encoding="utf-8")
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


def _lines(path: pathlib.Path) -> list[str]:
    """The whole lines of the file; one that was cut off by a kill is dropped."""
    if not path.exists():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines(True) if line[-1] == "\n"]
