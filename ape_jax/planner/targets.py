"""The devices that a name stands for, TPUs or GPUs, and what this machine is left out of."""

from __future__ import annotations

import os

import jax

from ape_jax.errors import UserError
from ape_jax.planner import gpus, slices
from ape_jax.planner.target import Target


def parse(name: str, *, thorough: bool = False) -> Target:
    """A slice of TPUs or a number of GPUs.

    Args:
      name: such as v5e:4x4 or h100:8.
      thorough: of a slice, whether programs are compiled as they would be to run; those for GPUs
        always are, but for what has to be measured.

    Raises:
      UserError: for a name that is none.
    """
    kind = name.partition(":")[0]
    if kind in gpus.GPUS:
        return gpus.parse(name)
    if kind in slices.CHIPS:
        return slices.parse(name, thorough=thorough)
    raise UserError(
        f"--topology: expected TPUs such as v5e:4x4, of {', '.join(slices.CHIPS)}, or GPUs such as "
        f"h100:8, of {', '.join(gpus.GPUS)}; found {name!r}"
    )


def leave_this_machine() -> None:
    """Nothing runs on accelerators, and nothing is compiled for this machine's processor alone."""
    os.environ["APE_JAX_MKL"] = "0"
    jax.config.update("jax_platforms", "cpu")
    # It would take up programs for machines that are not here, which cannot be read back.
    jax.config.update("jax_enable_compilation_cache", False)
