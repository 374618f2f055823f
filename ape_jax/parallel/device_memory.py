"""Memory that is left on the devices of a mesh."""

from __future__ import annotations

import jax
from jax.sharding import Mesh

from ape_jax.storage import memory


def free_bytes(mesh: Mesh) -> int | None:
    """Free memory of a device of this process, None where nothing is known.

    Args:
      mesh: the devices; those of the CPU share the memory of the host.
    """
    mine = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
    if not mine:
        return None
    if mine[0].platform == "cpu":
        free = memory.free_bytes()
        return None if free is None else free // len(mine)
    known = [stats for device in mine if (stats := device.memory_stats())]
    limits = [s["bytes_limit"] - s.get("bytes_in_use", 0) for s in known if "bytes_limit" in s]
    return min(limits) if limits else None
