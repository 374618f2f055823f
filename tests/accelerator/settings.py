"""What a part is told of the machine and of the time it has."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

# The processor beside the device: float64 is computed there.
PLATFORMS: Mapping[str, str] = {"gpu": "cuda,cpu", "tpu": "tpu,cpu", "cpu": "cpu"}


def environment(device: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process that runs on a device.

    Args:
      device: 'gpu', 'tpu' or 'cpu'.
      more: further variables; XLA's flags are added to those that are there.
    """
    more = dict(more or {})
    found = {**os.environ, "JAX_PLATFORMS": PLATFORMS[device]}
    # Several processes and torch share the device, of whose memory JAX would take three quarters.
    found.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    flags = [found.get("XLA_FLAGS", ""), more.pop("XLA_FLAGS", "")]
    found["XLA_FLAGS"] = " ".join(filter(None, flags))
    return {**found, **more}


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

    @functools.cached_property
    def torch_device(self) -> Any:
        """Where torch runs: on the same GPU, in exact float32 unless told otherwise.

        On a GPU that torch was not built for, and beside a TPU, it is the processor.
        """
        import torch

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        is_there = self.device == "gpu" and torch.cuda.is_available()
        return torch.device("cuda" if is_there else "cpu")
