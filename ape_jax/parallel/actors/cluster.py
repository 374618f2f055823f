"""Joining a Ray cluster, and how many actors it has room for."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import socket
import warnings
from collections.abc import Iterator
from typing import Any

from ape_jax.errors import UserError, install

# Cores of an actor: XLA uses several for one tower, which is in memory once an actor.
_CORES = 4
_STORE = 2**28  # Bytes of a local cluster's object store; towers and features do not pass through.
_ANSWERS = 10  # Seconds in which the head of a cluster has to accept a connection.


@dataclasses.dataclass(frozen=True, kw_only=True)
class RayCluster:
    """Which cluster, and how much of it.

    Attributes:
      address: of a cluster that runs, "auto" for the one of this machine; "" starts one here and
        ends it afterwards.
      actors: how many; 0 for one a GPU or, where there is none, one for every few cores.
    """

    address: str = ""
    actors: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Room:
    """How many actors there are to be, and what each of them takes.

    Attributes:
      actors: their number.
      cpus: cores of each; less than one where they share them.
      gpus: GPUs of each, 0 or 1.
    """

    actors: int
    cpus: float
    gpus: int

    @property
    def threads(self) -> int:
        """Threads that compute, an actor."""
        return max(1, int(self.cpus))


@contextlib.contextmanager
def joined(cluster: RayCluster) -> Iterator[Any]:
    """Joins the cluster, or starts one on this machine, and leaves or ends it.

    A process that is connected to Ray already, as a notebook may be, stays so.

    Yields:
      The module `ray`.

    Raises:
      UserError: where Ray is not installed or there is no such cluster.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError(f"--engine: 'ray' needs Ray, which is not installed; {install('ray')}")
    # It would ask home whether it may count this use.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield ray
        return
    _connect(ray, cluster.address)
    try:
        yield ray
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if not address:
        with warnings.catch_warnings():
            # JAX warns of forks, for the sake of what a child does before it runs a program.
            warnings.simplefilter("ignore", RuntimeWarning)
            ray.init(address="local", include_dashboard=False, object_store_memory=_STORE, **quiet)
        return
    try:
        _require_answer(address)
        ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise UserError(
            f"--address: there is no Ray cluster at {address!r} that can be joined ({reason}); "
            "start one with `ray start --head`, or leave --address out for one on this machine"
        ) from error


def _require_answer(address: str) -> None:
    """Raises OSError or ValueError unless something accepts connections at HOST:PORT.

    Ray itself tries for minutes, and then aborts the process.
    """
    if address == "auto":
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError("an address is 'auto', HOST:PORT or ray://HOST:PORT")
    socket.create_connection((host, int(port)), timeout=_ANSWERS).close()


def room(ray: Any, cluster: RayCluster) -> Room:
    """How many actors of which size the nodes of the cluster take.

    Raises:
      UserError: where no node has a core, and the number of actors is left to the cluster.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if gpus and os.environ.get("JAX_PLATFORMS", "").split(",")[0] != "cpu":
        return Room(actors=cluster.actors or gpus, cpus=1, gpus=1)
    cores = [int(node.get("CPU", 0)) for node in nodes]
    each = max(1, min(_CORES, max(cores, default=0)))
    if not cluster.actors:
        if not any(cores):
            raise UserError(
                "--actors: no node of the Ray cluster has a core now; write how many actors to "
                "wait for"
            )
        return Room(actors=sum(count // each for count in cores), cpus=each, gpus=0)
    if not any(cores):  # A cluster that grows when something waits for it.
        return Room(actors=cluster.actors, cpus=1, gpus=0)
    while each > 1 and sum(count // each for count in cores) < cluster.actors:
        each -= 1
    # More actors than cores share them.
    share = min(1.0, int(100 * sum(cores) / cluster.actors) / 100)
    return Room(actors=cluster.actors, cpus=each if share == 1 else max(share, 0.01), gpus=0)
