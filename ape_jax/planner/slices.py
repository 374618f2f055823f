"""Named TPU slices: their devices for the compiler, and what a chip of them can do."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from ape_jax.errors import UserError
from ape_jax.parallel import mesh as mesh_lib

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """What a chip is said to do by its maker (cloud.google.com/tpu/docs).

    Attributes:
      flops: multiply-adds in bf16, times two, a second.
      hbm: bytes of memory.
      hbm_rate: bytes a second from it.
      link_rate: bytes a second between chips, over all links and both ways.
      cores: JAX devices a chip.
      dimensions: of a slice's shape.
      options: what JAX's topology wants to hear beside the name.
    """

    flops: float
    hbm: int
    hbm_rate: float
    link_rate: float
    cores: int = 1
    dimensions: int = 2
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)


CHIPS: Mapping[str, Chip] = {
    "v4": Chip(
        flops=275e12,
        hbm=32 * GIB,
        hbm_rate=1228e9,
        link_rate=300e9,
        dimensions=3,
        options={"chip_config_name": "megacore"},
    ),
    "v5e": Chip(flops=197e12, hbm=16 * GIB, hbm_rate=819e9, link_rate=200e9),
    "v5p": Chip(flops=459e12, hbm=95 * GIB, hbm_rate=2765e9, link_rate=600e9, dimensions=3),
    "v6e": Chip(flops=918e12, hbm=32 * GIB, hbm_rate=1640e9, link_rate=448e9),
    "tpu7x": Chip(
        flops=2307e12, hbm=192 * GIB, hbm_rate=7380e9, link_rate=1200e9, cores=2, dimensions=3
    ),
}

# The compiler looks for a TPU machine around it, and has much to say if there is none.
_NO_MACHINE = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice by name, such as v5e:4x4.

    Attributes:
      name: as the user wrote it.
      kind: of its chips, a key of `CHIPS`.
      shape: chips along each dimension.
      thorough: whether programs for it are compiled as they would be to run. Without, the compiler
        weighs fewer ways to fuse and to order machine code, where nearly all of its time goes.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    thorough: bool = False

    @property
    def compiler_options(self) -> dict[str, float]:
        """What the compiler is told."""
        return {} if self.thorough else {"exec_time_optimization_effort": -1.0}

    @property
    def chip(self) -> Chip:
        """The chips it is made of."""
        return CHIPS[self.kind]

    @property
    def chips(self) -> int:
        """How many."""
        return math.prod(self.shape)

    @property
    def devices(self) -> int:
        """JAX devices of all chips."""
        return self.chips * self.chip.cores

    @property
    def device_hbm(self) -> int:
        """Bytes of memory of one JAX device."""
        return self.chip.hbm // self.chip.cores

    def mesh(self, fsdp: int = 1) -> Mesh:
        """A mesh over its devices, which are there for the compiler only.

        Args:
          fsdp: as for `parallel.mesh.make_mesh`.

        Raises:
          UserError: where libtpu is not installed, there is no such slice, or `fsdp` does not
            divide its devices.
        """
        from jax.experimental import topologies

        for key, value in _NO_MACHINE.items():
            os.environ.setdefault(key, value)
        options: dict[str, object] = dict(self.chip.options)
        if self.chips == 1:
            options["chips_per_host_bounds"] = (1, 1, 1)
        try:
            found = topologies.get_topology_desc(platform="tpu", topology_name=self.name, **options)
        except Exception as error:  # Whatever the plugin raises.
            reason = " ".join(str(error).split())
            if "not installed" in reason:
                raise UserError(
                    "--topology: compiling for TPUs needs their compiler; pip install -r "
                    f"requirements-tpu.txt ({reason})"
                ) from error
            raise UserError(f"--topology: there is no slice {self.name}: {reason}") from error
        shape, names = mesh_lib.axes(len(found.devices), fsdp)
        made = topologies.make_mesh(found, shape, names)
        return Mesh(np.asarray(made.devices), names, axis_types=(AxisType.Auto,) * len(names))


def parse(name: str, *, thorough: bool = False) -> Slice:
    """The slice of that name; `thorough` as it has it.

    Raises:
      UserError: for a name that is none.
    """
    match = re.fullmatch(r"([a-z0-9]+):(\d+(?:x\d+)*)", name)
    if not match or match[1] not in CHIPS:
        raise UserError(
            f"--topology: expected KIND:SHAPE such as v5e:4x4, of {', '.join(CHIPS)}; found "
            f"{name!r}"
        )
    shape = tuple(int(part) for part in match[2].split("x"))
    if len(shape) != CHIPS[match[1]].dimensions or not all(shape):
        example = "x".join("2" * CHIPS[match[1]].dimensions)
        raise UserError(
            f"--topology: a {match[1]} slice has {CHIPS[match[1]].dimensions} dimensions, as in "
            f"{match[1]}:{example}; found {name!r}"
        )
    return Slice(name, match[1], shape, thorough)


def leave_this_machine() -> None:
    """Nothing runs on accelerators, and nothing is compiled for this machine's processor alone."""
    os.environ["APE_JAX_MKL"] = "0"
    jax.config.update("jax_platforms", "cpu")
    # It would take up programs for machines that are not here, which cannot be read back.
    jax.config.update("jax_enable_compilation_cache", False)
