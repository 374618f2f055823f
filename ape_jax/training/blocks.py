"""How steps are grouped into windows, blocks and calls, and a batch into micro-batches.

A *window* is a fixed number of steps that share one packed size; it depends on the batch alone, so
that the size of a step is a function of (seed, step). A *block* is a part of a window whose batches
lie stacked on the device. A *call* runs some of a block's steps in one dispatch. How many steps a
block or a call has changes nothing but the speed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ape_jax.config.sections import TrainConfig

# Beyond this, a call costs too little to matter, and the window's largest batch grows.
_WINDOW = 64
_WINDOW_PAIRS = 2**22
# Of one block, on each device; there are up to four at a time.
_BLOCK_BYTES = 2**27
_USUAL = 32


@dataclasses.dataclass(frozen=True)
class Span:
    """The steps `first + start` to `first + stop` (exclusive) of the block that begins at `first`.

    Attributes:
      first: step of the block's first batch.
      start: first batch that is to be trained on.
      stop: one behind the last.
    """

    first: int
    start: int
    stop: int


def micro_batches(train: TrainConfig) -> int:
    """Number of micro-batches that a batch is embedded in, one after the other."""
    return train.batch // (train.micro_batch or train.batch)


def window_steps(batch: int) -> int:
    """Steps of a window: a power of two, fewer where its samples would fill the memory."""
    fits = max(_WINDOW_PAIRS // batch, 1)
    return min(_WINDOW, 1 << (fits.bit_length() - 1))


def block_steps(train: TrainConfig, step_bytes: int) -> int:
    """Steps of a block: `train.steps_per_call`, or as many as serve, within window and memory.

    It is 1 only where memory says so, whatever the config: see `step.make_run`.

    Args:
      train: the config's `train` group.
      step_bytes: of one batch, on one device.
    """
    # Lines are written once a block: `log_every` says how often someone wants to see them.
    wanted = max(train.steps_per_call or min(_USUAL, train.log_every), 2)
    fits = max(_BLOCK_BYTES // step_bytes, 1)
    steps = min(wanted, fits, window_steps(train.batch))
    return steps if train.steps_per_call else 1 << (steps.bit_length() - 1)


def spans(start: int, stop: int, steps: int, window: int) -> Iterator[Span]:
    """The blocks of `steps` steps that take training from step `start` to `stop`.

    They begin at fixed steps, so a start in the middle of a block finds the same block; the last of
    a window may be shorter.
    """
    at = start
    while at < stop:
        begin = at // window * window
        first = begin + (at - begin) // steps * steps
        end = min(first + steps, begin + window, stop)
        yield Span(first, at - first, end - first)
        at = end


def next_boundary(step: int, stop: int, *periods: int) -> int:
    """The first step after `step`, up to `stop`, that is a multiple of a period; 0 is no period."""
    return min([stop, *((step // period + 1) * period for period in periods if period)])
