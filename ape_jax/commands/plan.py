"""Planning from the command line: what a run costs elsewhere, and what to change to fit it."""

from __future__ import annotations

import sys

from ape_jax import config as config_lib
from ape_jax.config import Config, automatic
from ape_jax.errors import UserError
from ape_jax.planner import estimate, report, targets
from ape_jax.planner.shapes import Captions
from ape_jax.planner.targets import leave_this_machine
from ape_jax.terminal import command

__all__ = ["leave_this_machine", "plan"]

_PAIRS = 50_000  # Where nobody says how many there are.


def plan(
    config: Config,
    topology: str,
    *,
    tokens: tuple[float, int],
    pairs: int,
    search: bool,
    thorough: bool,
) -> None:
    """Compiles a run for other devices and prints what it costs.

    Args:
      config: of the run.
      topology: as `--topology`.
      tokens: mean number of tokens a caption, and those of the longest.
      pairs: of the data set, 0 if unknown.
      search: whether to find the largest batch that fits.
      thorough: whether to compile as for a run.

    Raises:
      UserError: for a topology that there is none of, or a run that does not fit.
    """
    where = targets.parse(topology, thorough=thorough)
    if automatic.is_open(config):
        values, line = automatic.settled(config, pairs or _PAIRS)
        command.say(f"as with {line}")
        config = config_lib.resolve({**config_lib.flatten(config), **values})
    mean, longest = tokens
    captions = Captions(mean=min(mean, longest), longest=longest)
    if search:
        best = estimate.largest_batch(config, where, captions, lambda s: print(s, file=sys.stderr))
        if not best:
            raise UserError(f"--topology: not even the smallest batch fits on {where.name}")
        config = config.replace({"train.batch": best})
    planned = estimate.assemble(config, where)
    step = estimate.training(config, where, captions, planned)
    # Whoever has to write another config need not wait for more.
    encoding = estimate.extraction(config, where, captions, planned) if step.fits else {}
    made = report.record(config, where, captions, step, encoding, pairs)
    command.output(made, report.text(made))
    for what, cost in {"the training step": step, **encoding}.items():
        if not cost.fits:
            raise UserError(
                f"{what} does not fit on {where.name}: {cost.reason}; write {_remedy(config, what)}"
            )


def _remedy(config: Config, what: str) -> str:
    if what in ("images", "captions"):
        return "a smaller eval.batch"
    if config.image.tune == config.text.tune == "frozen":
        return "a smaller train.batch or text.head.width, or take more chips"
    return "a smaller train.batch, or set train.micro_batch or train.remat"
