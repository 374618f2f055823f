"""Named GPUs: their devices for the compiler, and what one of them can do.

JAX's CUDA plugin compiles for GPUs that are not there if it is told all about them. It does not
measure which of several kernels is fastest, as it would where there is one.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from ape_jax.errors import UserError, install
from ape_jax.planner.target import GIB, Chip, Target, mesh_of

# Of a GPU's memory JAX takes three quarters (XLA_PYTHON_CLIENT_MEM_FRACTION).
TAKEN = 0.75
# Between machines: 400 Gb/s a GPU, both ways.
_NETWORK = 100e9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpu(Chip):
    """A GPU's (nvidia.com: data sheets, and the CUDA programming guide's table of capabilities).

    Attributes:
      title: its full name.
      exact: exact f32 products are those of the ordinary units.
      capability: of its instructions, major and minor.
      multiprocessors: how many.
      shared: bytes of shared memory a multiprocessor; a block can have 1,024 less.
      threads: that a multiprocessor holds.
      lanes: f32 units a multiprocessor.
      cache: bytes of its second level.
      clock: GHz at best.
    """

    title: str
    capability: tuple[int, int]
    multiprocessors: int
    shared: int
    threads: int = 2048
    lanes: int = 128
    cache: int
    clock: float


def _gpu(
    title: str, bf16: float, f32: float, hbm: int, rate: float, link: float, **more: Any
) -> Gpu:
    """A GPU: TFLOP/s of bf16 and of f32, bytes of memory, and GB/s from memory and between GPUs."""
    rates = {"flops": bf16 * 1e12, "hbm_rate": rate * 1e9, "link_rate": link * 1e9}
    return Gpu(title=f"NVIDIA {title}", exact=bf16 / f32, hbm=hbm, **rates, **more)


_AMPERE = {"capability": (8, 0), "multiprocessors": 108, "shared": 164 << 10, "cache": 40 << 20}
_ADA = {"capability": (8, 9), "shared": 100 << 10, "threads": 1536}
_HOPPER = {"capability": (9, 0), "multiprocessors": 132, "shared": 228 << 10, "cache": 50 << 20}
_HOPPER |= {"clock": 1.98}
_BLACKWELL = {"capability": (10, 0), "multiprocessors": 148, "cache": 126 << 20, "clock": 1.96}
_L4 = {"multiprocessors": 58, "cache": 48 << 20, "clock": 2.04}
_L40S = {"multiprocessors": 142, "cache": 96 << 20, "clock": 2.52}
GPUS: Mapping[str, Gpu] = {
    "a100": _gpu("A100-SXM4-80GB", 312, 19.5, 80 * GIB, 2039, 600, lanes=64, clock=1.41, **_AMPERE),
    "l4": _gpu("L4", 121, 30.3, 24 * GIB, 300, 64, **_ADA, **_L4),
    "l40s": _gpu("L40S", 362, 91.6, 48 * GIB, 864, 64, **_ADA, **_L40S),
    "h100": _gpu("H100 80GB HBM3", 989, 67, 80 * GIB, 3352, 900, **_HOPPER),
    "h200": _gpu("H200", 989, 67, 141 * 10**9, 4800, 900, **_HOPPER),
    "b200": _gpu("B200", 2250, 75, 180 * 10**9, 8000, 1800, shared=228 << 10, **_BLACKWELL),
}


@dataclasses.dataclass(frozen=True)
class Gpus(Target):
    """GPUs by name, such as h100:8 (one machine) or h100:4x8 (four).

    Attributes:
      name: as the user wrote it.
      kind: a key of `GPUS`.
      machines: how many.
      each: GPUs a machine.
    """

    name: str
    kind: str
    machines: int
    each: int
    platform = "cuda"

    @property
    def compiler_options(self) -> Mapping[str, object]:
        """Nothing can be measured."""
        return {"xla_gpu_autotune_level": 0}

    @property
    def chip(self) -> Gpu:
        """One of them; between machines, its links are the network."""
        gpu = GPUS[self.kind]
        if self.machines == 1:
            return gpu
        return dataclasses.replace(gpu, link_rate=min(gpu.link_rate, _NETWORK))

    @property
    def chips(self) -> int:
        """Number of GPUs."""
        return self.machines * self.each

    def mesh(self, fsdp: int = 1) -> Mesh:
        """Makes the mesh, see `Target.mesh`."""
        from jax.experimental import topologies

        _tell_where_the_assembler_is()
        shape = f"1x{self.machines}x{self.each}"
        try:
            found = topologies.get_topology_desc(
                platform="cuda", topology_name="", topology=shape, target_config=self._described()
            )
        except NotImplementedError as error:
            raise UserError(
                "--topology: compiling for GPUs needs JAX's CUDA plugin; run "
                f"{install('plan-gpu')} ({error})"
            ) from error
        except Exception as error:  # Whatever the plugin raises.
            reason = " ".join(str(error).split())
            raise UserError(f"--topology: {self.name} cannot be compiled for: {reason}") from error
        return mesh_of(found, fsdp)

    def refusal(self, peak: int) -> str:
        """The compiler lets everything pass."""
        limit = int(TAKEN * self.device_hbm)
        if peak <= limit:
            return ""
        return (
            f"it needs {peak / GIB:.1f} GiB a device, and of {self.device_hbm / GIB:.0f} JAX takes "
            f"{limit / GIB:.0f}"
        )

    def _described(self) -> str:
        """Protocol-buffer text, as XLA's `GpuTargetConfigProto` has it."""
        gpu = self.chip
        major, minor = gpu.capability
        device = {
            "threads_per_block_limit": 1024,
            "threads_per_warp": 32,
            "shared_memory_per_block": 48 << 10,
            "shared_memory_per_block_optin": gpu.shared - 1024,
            "shared_memory_per_core": gpu.shared,
            "threads_per_core_limit": gpu.threads,
            "registers_per_core_limit": 1 << 16,
            "registers_per_block_limit": 1 << 16,
            "core_count": gpu.multiprocessors,
            "fpus_per_core": gpu.lanes,
            "block_dim_limit_x": 2**31 - 1,
            "block_dim_limit_y": 2**16 - 1,
            "block_dim_limit_z": 2**16 - 1,
            "memory_bandwidth": int(gpu.hbm_rate),
            "l2_cache_size": gpu.cache,
            "clock_rate_ghz": gpu.clock,
            "device_memory_size": gpu.hbm,
        }
        lines = "\n".join(f"  {key}: {value}" for key, value in device.items())
        return (
            f"gpu_device_info {{\n{lines}\n"
            f"  cuda_compute_capability {{ major: {major} minor: {minor} }}\n}}\n"
            'platform_name: "CUDA"\n'
            "dnn_version_info { major: 9 minor: 8 }\nruntime_version { major: 12 minor: 9 }\n"
            f'device_description_str: "{gpu.title}"\n'
        )


def parse(name: str) -> Gpus:
    """The GPUs of that name.

    Raises:
      UserError: for a name that is none.
    """
    match = re.fullmatch(r"([a-z0-9]+):(?:([1-9]\d*)x)?([1-9]\d*)", name)
    if not match or match[1] not in GPUS:
        raise UserError(
            f"--topology: expected GPU:NUMBER or GPU:MACHINESxNUMBER such as h100:4x8, of "
            f"{', '.join(GPUS)}; found {name!r}"
        )
    return Gpus(name, match[1], int(match[2] or 1), int(match[3]))


def _tell_where_the_assembler_is() -> None:
    """NVIDIA's assembler comes in a package, and XLA looks for it in the system."""
    found = importlib.util.find_spec("nvidia")
    for place in found.submodule_search_locations if found else ():
        for package in pathlib.Path(place).glob("*"):
            assembler = package / "bin" / "ptxas"
            if assembler.is_file():
                if not os.access(assembler, os.X_OK):  # Unpacked without its permissions.
                    raise UserError(f"--topology: {assembler} cannot be run; install it with pip")
                os.environ["PATH"] = f"{assembler.parent}{os.pathsep}{os.environ['PATH']}"
                flag = f"--xla_gpu_cuda_data_dir={package}"
                os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
                return
