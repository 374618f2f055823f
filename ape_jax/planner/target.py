"""Targets of a plan: devices that only the compiler knows, and their rates."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from jax.sharding import AxisType, Mesh

from ape_jax.parallel import mesh as mesh_lib

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """Figures of a chip, by its maker.

    Attributes:
      flops: multiply-adds in bf16, times two, a second.
      hbm: bytes of memory.
      hbm_rate: bytes a second from it.
      link_rate: bytes a second between chips, over all links and both ways.
      exact: how many times as long an exact f32 product takes as one in bf16.
      cores: JAX devices a chip.
    """

    flops: float
    hbm: int
    hbm_rate: float
    link_rate: float
    exact: float
    cores: int = 1


class Target(abc.ABC):
    """Devices by name.

    Attributes:
      name: as the user wrote it.
      kind: of its chips, such as "h100".
      platform: of JAX.
    """

    name: str
    kind: str
    platform: ClassVar[str]

    @property
    @abc.abstractmethod
    def chip(self) -> Chip:
        """The chips it is made of."""

    @property
    @abc.abstractmethod
    def chips(self) -> int:
        """Number of chips."""

    @property
    @abc.abstractmethod
    def compiler_options(self) -> Mapping[str, Any]:
        """Options of the compiler."""

    @abc.abstractmethod
    def mesh(self, fsdp: int = 1) -> Mesh:
        """A mesh over its devices, which are there for the compiler only.

        Args:
          fsdp: as for `parallel.mesh.make_mesh`.

        Raises:
          UserError: where the compiler is not installed, there are no such devices, or `fsdp` does
            not divide them.
        """

    def refusal(self, peak: int) -> str:
        """Why a program that takes `peak` bytes a device does not fit, '' where it does.

        Args:
          peak: of a program that the compiler has let pass.
        """
        return ""

    @property
    def devices(self) -> int:
        """JAX devices of all chips."""
        return self.chips * self.chip.cores

    @property
    def device_hbm(self) -> int:
        """Bytes of memory of one JAX device."""
        return self.chip.hbm // self.chip.cores


def mesh_of(found: Any, fsdp: int) -> Mesh:
    """The mesh of a run over the devices of a topology.

    Args:
      found: of `jax.experimental.topologies.get_topology_desc`.
      fsdp: as for `parallel.mesh.make_mesh`.
    """
    from jax.experimental import topologies

    shape, names = mesh_lib.axes(len(found.devices), fsdp)
    made = topologies.make_mesh(found, shape, names)
    return Mesh(np.asarray(made.devices), names, axis_types=(AxisType.Auto,) * len(names))
