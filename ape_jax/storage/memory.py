"""Memory that is left on this machine."""

from __future__ import annotations

import pathlib


def free_bytes() -> int | None:
    """Memory that this machine, or the container around this process, has left; None: unknown."""
    found = []
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        limit, used = (
            pathlib.Path(f"/sys/fs/cgroup/memory.{name}").read_text() for name in ("max", "current")
        )
        found.append(max(int(limit) - int(used), 0))
    except (OSError, ValueError, IndexError):  # Not Linux, or "max": no limit.
        pass
    return min(found) if found else None
