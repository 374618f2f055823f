"""Processes: joining and leaving a cluster."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import NoReturn

import jax
import numpy as np
from jax._src import distributed

from ape_jax.errors import UserError
from ape_jax.parallel import agreement, ends, environment, signals
from ape_jax.parallel import lost as lost_lib
from ape_jax.parallel.peers import End, Peers

LOST = 70
"""Exit code of a run that has lost one of its processes."""

AGAIN = "started again, the same command goes on from what is saved"

# Seconds without a heartbeat after which a process counts as lost and the others end.
_LOST_AFTER = 25
_TOGETHER = 60.0  # Seconds in which all processes come from joining to the first comparison.


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


class PeerEnded(Exception):
    """Another process ended first, for a reason of its own; the message says why.

    Attributes:
      code: exit code.
    """

    def __init__(self, sentence: str, code: int):
        super().__init__(sentence)
        self.code = code


@contextlib.contextmanager
def cluster(kept: str = AGAIN, facts: Mapping[str, str] | None = None) -> Iterator[None]:
    """Joins the cluster that launched this process, if any, and leaves it at the end.

    The processes compare their code, packages and settings first. From then on an error of one ends
    all, each with a sentence that names the process and its error, and so does the loss of one.

    After an error the cluster is not shut down: shutting down waits for all processes, and the
    others may be waiting in a collective for this one. JAX shuts down again when the interpreter
    ends; a command that has reported an error must exit without it.

    Args:
      kept: what is said of the work when another process ends or is lost.
      facts: what must be the same in all processes beside `environment.facts`, by name.

    Raises:
      UserError: for processes that differ, or that do not come.
      PeerEnded: for an error here that comes of the end of another process.
    """
    if not in_cluster():
        yield
        return
    peers = _joined(kept)
    try:
        remedy = "start all of them with the same command, packages and environment"
        peers.agree("the start", {**(facts or {}), **environment.facts()}, remedy, within=_TOGETHER)
        agreement.join(peers)
        with signals.forwarded(peers.ask):
            yield
    except BaseException as error:
        first = peers.end(*_reason(error))
        if first.process != peers.index and not isinstance(error, UserError):
            raise PeerEnded(_told(first, peers.count, kept), first.code) from error
        raise
    finally:
        agreement.leave()
        peers.leave()
    jax.distributed.shutdown()


def _joined(kept: str) -> Peers:
    """Joins, and lets the end and the loss of another process end this one."""
    count, index = os.environ.get("JAX_NUM_PROCESSES"), os.environ.get("JAX_PROCESS_ID")
    if os.environ.get("JAX_PLATFORMS") == "cpu":  # CPU processes talk to each other over gloo.
        jax.config.update("jax_cpu_collectives_implementation", "gloo")

    joined: list[Peers] = []

    def lost() -> NoReturn:
        for first in [peers.first for peers in joined if peers.first]:
            ended(first)  # The process that keeps the store has said why it goes.
        ends.at_once(f"error: another process of this run was lost; {kept}", LOST)

    def ended(first: End) -> NoReturn:
        ends.at_once(_told(first, joined[0].count, kept), first.code)

    with lost_lib.heard_of(lost):
        jax.distributed.initialize(
            num_processes=int(count) if count else None,
            process_id=int(index) if index else None,
            heartbeat_timeout_seconds=_LOST_AFTER,
        )
    state = distributed.global_state
    peers = Peers(state.client, state.process_id, state.num_processes)
    joined.append(peers)
    ends.afterwards(peers.heard)
    peers.watch(ended, lambda name: signals.sentence(name, kept))
    if threading.current_thread() is threading.main_thread():
        signals.watch(kept)
    signals.handle()  # JAX has taken SIGTERM.
    return peers


def _reason(error: BaseException) -> tuple[int, str]:
    """The exit code of an error, and what the other processes are told."""
    if isinstance(error, UserError):
        return 1, str(error)
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted"
    if is_lost(error):
        return LOST, "it has lost the connection to another"
    return LOST, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _told(end: End, count: int, kept: str) -> str:
    """What a process says that ends with another."""
    who = f"process {end.process} of {count}"
    if end.code == 0:
        return end.sentence
    if end.code == 130:
        return f"{who} was interrupted: {kept}"
    if end.code == 1:
        return f"error: {who}: {end.sentence}"
    return f"error: {who} failed ({end.sentence}); {kept}"


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
