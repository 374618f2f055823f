"""Leaves out records whose image cannot be read, and reports them."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from jaxtyping import Bool

from ape_jax.data import image_loader
from ape_jax.data import pairs as pairs_lib
from ape_jax.features.cache import say
from ape_jax.parallel import hosts


def leave_out_unseen(
    pairs: pairs_lib.Pairs, seen: Bool[np.ndarray, "n"], skipped: image_loader.Skipped, name: str
) -> pairs_lib.Pairs:
    """The records that have features; reports how many have none."""
    if seen.all():
        return pairs
    left_out = int((~seen).sum())
    if len(skipped) == left_out:
        report_skipped(skipped, len(pairs), name)
    else:  # Some or all were met by an earlier start, or by another process.
        ids = [pairs[int(i)].id for i in np.flatnonzero(~seen)[:3]]
        say(
            f"{name}: left out {left_out} of {len(pairs)} images that cannot be read: "
            + ", ".join(ids)
            + (" ..." if left_out > len(ids) else "")
        )
    return pairs.take(np.flatnonzero(seen))


def leave_out_unreadable(pairs: pairs_lib.Pairs, transform: Any, name: str) -> pairs_lib.Pairs:
    """The records whose image can be read; for images that are not encoded beforehand."""
    skipped = image_loader.Skipped()
    batches = image_loader.image_batches(
        pairs, transform=transform, batch=64, on_error="skip", skipped=skipped
    )
    for _ in batches:
        pass
    report_skipped(skipped, len(pairs), name)
    bad = set(skipped.indices)
    return pairs.take([i for i in range(len(pairs)) if i not in bad])


def report_skipped(skipped: image_loader.Skipped, count: int, name: str) -> None:
    """Reports which images were left out, and how many."""
    if len(skipped) and hosts.is_first():
        print(
            f"{name}: left out {len(skipped)} of {count} images that cannot be read: "
            + "; ".join(skipped.reasons),
            file=sys.stderr,
        )
