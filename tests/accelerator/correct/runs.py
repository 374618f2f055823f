"""Runs of the command in processes of their own: started, killed in the middle, and compared."""

from __future__ import annotations

import json
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from tests.accelerator.settings import environment

_LINES = "metrics.jsonl"


class Failed(Exception):
    """A command did not do what a part needs."""


def start(
    config: pathlib.Path, workdir: pathlib.Path, device: str, more: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Starts a training run on a device; what it prints goes to the log of the part.

    Args:
      config: the file.
      workdir: the work directory.
      device: 'gpu', 'tpu' or 'cpu'.
      more: of the environment, XLA's flags being added to those that are there.
    """
    command = [sys.executable, "-m", "ape_jax.main", f"--config={config}", f"--workdir={workdir}"]
    compiled = {"JAX_COMPILATION_CACHE_DIR": str(config.parent / f"compiled-{device}")}
    compiled["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    return subprocess.Popen(
        command, env=environment(device, {**compiled, **(more or {})}), stdout=sys.stderr.fileno()
    )


def kill_after(process: subprocess.Popen[bytes], workdir: pathlib.Path, step: int) -> None:
    """Kills a run as soon as the checkpoint of a step is there.

    Raises:
      Failed: where it ended before that.
    """
    while process.poll() is None:
        if (workdir / "checkpoints" / str(step)).exists():
            process.send_signal(signal.SIGKILL)
        time.sleep(0.005)
    if process.returncode != -signal.SIGKILL:
        raise Failed(f"the run to be killed ended with {process.returncode} before step {step}")


def finish(*processes: subprocess.Popen[bytes]) -> None:
    """Waits for runs.

    Raises:
      Failed: for one that does not end with 0.
    """
    if any(codes := [process.wait() for process in processes]):
        raise Failed(f"runs ended with {codes}; see the log")


def steps(workdir: pathlib.Path) -> list[int]:
    """The steps of the checkpoints that are there."""
    found = (workdir / "checkpoints").iterdir()
    return sorted(int(path.name) for path in found if path.name.isdigit())


def parameters(workdir: pathlib.Path, step: int | None = None) -> Any:
    """What was trained, out of a checkpoint, as NumPy arrays.

    Args:
      workdir: the work directory.
      step: of the checkpoint; None for the last.
    """
    step = steps(workdir)[-1] if step is None else step
    path = (workdir / "checkpoints" / str(step) / "trainable").absolute()
    with ocp.StandardCheckpointer() as checkpointer:
        return jax.tree.map(np.asarray, checkpointer.restore(path))


def losses(workdir: pathlib.Path) -> list[float]:
    """The losses of the run's lines, in the order of their steps."""
    lines = map(json.loads, (workdir / _LINES).read_text().splitlines())
    return [line["train/loss"] for line in lines if "train/loss" in line]
