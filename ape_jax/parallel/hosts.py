"""Processes: joining and leaving a cluster."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import jax
import numpy as np

# Seconds without a heartbeat after which a process counts as lost and the others end.
_LOST_AFTER = 30


def in_cluster() -> bool:
    """Returns whether this process was started as one of several.

    Reads only variables that launchers set, so that a laptop never waits for a coordinator: JAX's
    own variables, Slurm's task count, the worker list of a TPU pod and the address of several pods.
    A Slurm batch script has a task count too, but only `srun` starts the tasks and sets the node
    list of a step.
    """
    env = os.environ
    if env.get("JAX_COORDINATOR_ADDRESS") or env.get("MEGASCALE_COORDINATOR_ADDRESS"):
        return True
    if env.get("SLURM_NTASKS", "1") != "1" and "SLURM_STEP_NODELIST" in env:
        return True
    return len(env.get("TPU_WORKER_HOSTNAMES", "").split(",")) > 1


@contextlib.contextmanager
def cluster() -> Iterator[None]:
    """Joins the cluster that launched this process, if any, and leaves it at the end.

    After an error the cluster is not shut down: shutting down waits for all processes, and the
    others may be waiting in a collective for this one. JAX shuts down again when the interpreter
    ends; a command that has reported an error must exit without it.
    """
    if not in_cluster():
        yield
        return
    count, index = os.environ.get("JAX_NUM_PROCESSES"), os.environ.get("JAX_PROCESS_ID")
    if os.environ.get("JAX_PLATFORMS") == "cpu":  # CPU processes talk to each other over gloo.
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        num_processes=int(count) if count else None,
        process_id=int(index) if index else None,
        heartbeat_timeout_seconds=_LOST_AFTER,
    )
    yield
    jax.distributed.shutdown()


def is_lost(error: BaseException) -> bool:
    """Returns whether an error reports the loss of another process of the run."""
    signs = ("Connection closed by peer", "Connection reset by peer", "heartbeat", "Gloo ")
    return jax.distributed.is_initialized() and any(sign in str(error) for sign in signs)


def is_first() -> bool:
    """Returns whether this is the process that writes logs and small files."""
    return jax.process_index() == 0


def say(line: str) -> None:
    """Prints a line for the user on stderr, once in a cluster."""
    if is_first():
        print(line, file=sys.stderr, flush=True)


def any_of(mine: bool) -> bool:
    """Returns whether it is so on any process; each must call it."""
    if jax.process_count() == 1:
        return mine
    from jax.experimental import multihost_utils

    return bool(np.max(multihost_utils.process_allgather(np.int32(mine))))


def gather_turns(rows: np.ndarray) -> np.ndarray:
    """Rows that processes computed in turns, of each process its own: row k is process k % count's.

    Bits are moved and not computed with, also those of f64, which devices would round.
    """
    count = jax.process_count()
    if count == 1:
        return rows
    from jax.experimental import multihost_utils

    words = np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint32)
    every = np.asarray(multihost_utils.process_allgather(words))
    owner = np.arange(len(rows)) % count
    return every[owner, np.arange(len(rows))].view(rows.dtype).reshape(rows.shape)
