"""Memory that is left on this machine."""

from __future__ import annotations

import pathlib
import sys

_GROUP = pathlib.Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60  # What stands for none: all bits but a few.


def free_bytes() -> int | None:
    """Memory that this process can still take; None: unknown.

    It is the least of what the machine has left, what the container around this process has left,
    and what the process may take by its own limit (`ulimit -v`). Pages of files that were read
    count as free: the system gives them up for anything else.
    """
    found = [left() for left in (_machine, _container, _limit)]
    return min((left for left in found if left is not None), default=None)


def shown(size: float) -> str:
    """Bytes for a message.

    >>> shown(266e9 * 4), shown(3.2e6)
    ('1,064.0 GB', '3.2 MB')

    Args:
      size: bytes.
    """
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _machine() -> int | None:
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        found = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
        return found[0] * 1024
    except (OSError, ValueError, IndexError):  # Not Linux.
        return None


def _container() -> int | None:
    try:
        limit, used = (int((_GROUP / f"memory.{k}").read_text()) for k in ("max", "current"))
        lines = (line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        pages = sum(int(n) for name, n in lines if name in ("active_file", "inactive_file"))
        return max(limit - used + pages, 0)
    except (OSError, ValueError):  # None, an older kind, or "max": no limit.
        return None


def _limit() -> int | None:
    if sys.platform != "linux":
        return None
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if not 0 <= most < _NO_LIMIT:
        return None
    try:
        taken = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return max(most - taken * resource.getpagesize(), 0)
