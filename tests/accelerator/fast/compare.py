"""One comparison, one figure: throughput, milliseconds, share of the card's speed, and torch's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.accelerator import clock
from tests.accelerator.fast import card, peer
from tests.accelerator.figures import Figures, say
from tests.accelerator.settings import Settings

OURS = "ours"
# What libraries say where memory does not suffice.
_NO_MEMORY = ("RESOURCE_EXHAUSTED", "out of memory", "Unable to allocate", "can't allocate memory")


def has_time(settings: Settings, figures: Figures, name: str, *, seconds: float = 60.0) -> bool:
    """Whether so much of the part's time is left; if not, says that the figure is left out.

    Args:
      settings: of the part.
      figures: of the part.
      name: of the figure.
      seconds: that it may take; a tenth of them with small sizes.
    """
    wanted = seconds / 10 if settings.small else seconds
    if settings.left() >= wanted:
        return True
    figures.left_out(name, f"{settings.left():.0f} s were left, and it may take {wanted:.0f} s")
    return False


def fits(figures: Figures, name: str, call: Callable[[], Any]) -> bool:
    """Calls once, and says so where the memory does not suffice."""
    try:
        clock.waited(call)
    except Exception as error:  # Every library has its own.
        said = " ".join(str(error).split())
        if not any(words in said for words in _NO_MEMORY):
            raise
        peer.free()
        figures.left_out(name, f"it does not fit into the memory: {said[:200]}")
        return False
    return True


def that_fit(
    settings: Settings,
    figures: Figures,
    name: str,
    peers: Mapping[str, Callable[[], Any]],
    beside: dict[str, Any],
) -> dict[str, Callable[[], Any]]:
    """Torch's calls that fit into the memory; `beside` gets what each takes, in MiB."""
    found = {}
    for key, call in peers.items():
        with peer.peak_memory(settings) as peak:
            if fits(figures, f"{name}: {key}", call):
                found[key] = call
                if (most := peak()) is not None:
                    beside[f"MiB, {key}"] = most / 2**20
        peer.free()
    return found


def figure(
    settings: Settings,
    figures: Figures,
    name: str,
    calls: Mapping[str, Callable[[], Any]],
    *,
    rows: float,
    unit: str,
    flops: float = 0.0,
    dtype: str = "bfloat16",
    beside: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Times what is called, in turn, and prints one line.

    The value is ours in rows a second; beside it are milliseconds, the share of the card's own
    products, everybody else's rows a second, and how many times as fast we are as the best of torch
    whose products are as exact ('tf32' in a name says that they are not).

    Args:
      settings: of the part.
      figures: of the part.
      name: of the figure.
      calls: `OURS` and others, by name. What does not fit into the memory is said and left out.
      rows: of one call.
      unit: such as 'images/s'.
      flops: of the real work of one call; 0 prints no share.
      dtype: 'bfloat16' or 'float32', whose products the share is of.
      beside: further figures.

    Returns:
      Seconds of one call by name, of those that fitted.
    """
    say(name)
    able = {key: x for key, x in calls.items() if fits(figures, f"{name}: {key}", x)}
    if not able:
        return {}
    times = clock.seconds(
        able, rounds=settings.pick(7, 1), at_least=0.0 if settings.small else 0.05
    )
    found: dict[str, Any] = dict(beside or {})
    if OURS in times:
        found["ms"] = 1e3 * times[OURS]
        if flops:
            found["TFLOP/s"] = flops / times[OURS] / 1e12
            peak = card.products(dtype, settings.pick(8192, 256))
            found["share of the card's products"] = flops / times[OURS] / peak
    others = {key: seconds for key, seconds in times.items() if key != OURS}
    found |= {key: rows / seconds for key, seconds in others.items()}
    fair = [s for key, s in others.items() if key.startswith("torch") and "tf32" not in key]
    if fair and OURS in times:
        found["times the best of torch"] = min(fair) / times[OURS]
    value: float | str = rows / times[OURS] if OURS in times else "does not fit"
    figures.measured(name, value, unit, beside=found)
    return times
