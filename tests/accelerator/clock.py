"""Times of what runs on a device: warm, in turn, and medians."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax


def seconds(
    calls: Mapping[str, Callable[[], Any]], *, rounds: int = 7, at_least: float = 0.05
) -> dict[str, float]:
    """Median seconds of each call; all take turns, so that a change of pace meets all of them.

    Args:
      calls: what is called, by name. A result of JAX is waited for, and so is torch's GPU; others
        must wait themselves.
      rounds: how often each is timed, after two calls that are not.
      at_least: a round calls as often as this many seconds take.

    Returns:
      Seconds of one call, by name.
    """
    repeats = {}
    for name, call in calls.items():
        waited(call, 2)
        repeats[name] = max(1, round(at_least / max(waited(call, 1), 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(waited(call, repeats[name]) / repeats[name])
    return {name: statistics.median(found) for name, found in times.items()}


def waited(call: Callable[[], Any], times: int = 1) -> float:
    """Seconds of some calls in a row, waited for once at the end."""
    started = time.perf_counter()
    made = None
    for _ in range(times):
        made = call()
    jax.block_until_ready(made)
    wait_for_torch()
    return time.perf_counter() - started


def wait_for_torch() -> None:
    """Waits for torch's GPU, where torch was imported and has one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()
