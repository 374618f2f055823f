"""Named TPU slices: their devices for the compiler, and what a chip of them can do."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping

import jax
from jax.sharding import Mesh

from ape_jax.errors import UserError, install
from ape_jax.planner.target import GIB, Chip, Target, mesh_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpuChip(Chip):
    """A TPU's (cloud.google.com/tpu/docs).

    Attributes:
      exact: an exact f32 product is put together from six in bf16.
      dimensions: of a slice's shape.
      options: what JAX's topology wants to hear beside the name.
    """

    exact: float = 6.0
    dimensions: int = 2
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)


CHIPS: Mapping[str, TpuChip] = {
    "v4": TpuChip(
        flops=275e12,
        hbm=32 * GIB,
        hbm_rate=1228e9,
        link_rate=300e9,
        dimensions=3,
        options={"chip_config_name": "megacore"},
    ),
    "v5e": TpuChip(flops=197e12, hbm=16 * GIB, hbm_rate=819e9, link_rate=200e9),
    "v5p": TpuChip(flops=459e12, hbm=95 * GIB, hbm_rate=2765e9, link_rate=600e9, dimensions=3),
    "v6e": TpuChip(flops=918e12, hbm=32 * GIB, hbm_rate=1640e9, link_rate=448e9),
    "tpu7x": TpuChip(
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
class Slice(Target):
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
    platform = "tpu"

    @property
    def compiler_options(self) -> dict[str, float | str]:
        """Options of the compiler."""
        if self.thorough:
            return {}
        # jax 0.12 has levels in the place of a number.
        if hasattr(jax.config, "jax_exec_time_optimization_effort"):
            return {"exec_time_optimization_effort": -1.0}
        return {"optimization_level": "O1"}

    @property
    def chip(self) -> TpuChip:
        """The chips it is made of."""
        return CHIPS[self.kind]

    @property
    def chips(self) -> int:
        """Number of chips."""
        return math.prod(self.shape)

    def mesh(self, fsdp: int = 1) -> Mesh:
        """Makes the mesh, see `Target.mesh`."""
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
                    "--topology: compiling for TPUs needs their compiler; run "
                    f"{install('plan-tpu')} ({reason})"
                ) from error
            raise UserError(f"--topology: there is no slice {self.name}: {reason}") from error
        return mesh_of(found, fsdp)


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
