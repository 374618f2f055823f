"""Where the features of a run live: on every device, in the host's memory, or on disk."""

from __future__ import annotations

import socket
import zlib
from typing import Literal, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh

from ape_jax.errors import UserError
from ape_jax.features.dataset import Dataset
from ape_jax.parallel import device_memory, hosts
from ape_jax.storage import memory

# Of what is free: training, evaluation and, on a CPU, everything else need memory too.
_SHARE = {"cpu": 0.25}
_USUAL_SHARE = 0.5
_MOST = 0.9  # 'device' is taken at its word up to here.
_HOST_SHARE = 0.5  # What is on disk is read into memory up to here; its pages need room as well.
_INDICES = 2**31  # Indices on the device have 32 bits.


Where: TypeAlias = Literal["device", "host", "disk"]


def choose(dataset: Dataset, place: str, mesh: Mesh, *, streams: bool = False) -> Where:
    """Where features live in training; says so.

    Args:
      dataset: the pairs.
      place: the config's `cache.place`.
      mesh: the devices.
      streams: whether the features may not live on devices.

    Raises:
      UserError: where they must live on the devices and cannot.
    """
    if place in ("host", "disk"):
        return place
    if dataset.pooled is None or dataset.tokens is None:
        if place == "device":
            raise UserError(
                "config.cache.place: 'device' keeps encoded features, and here images or captions "
                "are encoded in the step; write 'auto'"
            )
        return _host_or_disk(dataset, "")
    if streams:
        return _host_or_disk(dataset, "")
    need = feature_bytes(dataset)
    countable = max(len(dataset.pairs), len(dataset.tokens.flat)) < _INDICES
    free = _agreed(device_memory.free_bytes(mesh))
    platform = mesh.devices.flat[0].platform
    allowed = _MOST if place == "device" else _SHARE.get(platform, _USUAL_SHARE)
    fits = countable and free is not None and need <= allowed * free
    sizes = f"{_mib(need)} of features" + ("" if free is None else f", {_mib(free)} free a device")
    if place == "device" and not fits:
        raise UserError(
            f"config.cache.place: 'device' does not fit ({sizes}, of which {allowed:.0%} may be "
            "used); write 'host' or 'disk', or fewer cache.views"
        )
    if not fits:
        return _host_or_disk(dataset, sizes)
    _say("device", sizes)
    return "device"


def _host_or_disk(dataset: Dataset, sizes: str) -> Where:
    """The host, where what is on disk leaves it much of its memory."""
    need = dataset.bytes_on_disk
    free = _agreed(_share_of_memory()) if need else None
    where: Where = "host" if not need or (free and need <= _HOST_SHARE * free) else "disk"
    if where == "disk":
        _say("disk", f"{_mib(need)} of features, {_mib(free or 0)} of memory free a process")
    elif sizes:
        _say("host", sizes)
    return where


def _say(where: Where, sizes: str) -> None:
    hosts.say(f"features live on the {where} ({sizes})")


def feature_bytes(dataset: Dataset) -> int:
    """What one device would hold."""
    tokens = dataset.tokens
    ids = 0 if tokens.ids is None else tokens.ids.nbytes
    return dataset.pooled.nbytes + tokens.flat.nbytes + ids + 4 * len(tokens.offsets)


def _share_of_memory() -> int | None:
    """Free memory of this machine, by how many processes of the run are on it."""
    free = memory.free_bytes()
    if free is None or jax.process_count() == 1:
        return free
    from jax.experimental import multihost_utils

    mine = np.int32(zlib.crc32(socket.gethostname().encode()) >> 1)
    return free // int(np.sum(multihost_utils.process_allgather(mine) == mine))


def _agreed(free: int | None) -> int | None:
    """The least of all processes: they have to decide alike."""
    if jax.process_count() == 1:
        return free
    from jax.experimental import multihost_utils

    # In MiB, as a device has no 64-bit integers.
    mib = np.int32(-1 if free is None else min(free >> 20, 2**31 - 1))
    least = int(np.min(multihost_utils.process_allgather(mib)))
    return None if least < 0 else least << 20


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
