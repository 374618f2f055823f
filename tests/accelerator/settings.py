"""What a part is told of the machine and of the time it has."""

from __future__ import annotations

import dataclasses
import pathlib
import time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How the parts are run.

    Attributes:
      device: 'gpu', 'tpu' or 'cpu'.
      small: sizes with which a processor takes seconds; its figures say nothing of speed.
      out: directory of the log and of the figures.
      deadline: when the part is ended, as `time.monotonic` counts.
    """

    device: str
    small: bool
    out: pathlib.Path
    deadline: float

    def left(self) -> float:
        """Seconds that are left for this part."""
        return self.deadline - time.monotonic()

    def pick(self, full: int, small: int) -> int:
        """A size: `small` of the two if sizes are to be small."""
        return small if self.small else full
