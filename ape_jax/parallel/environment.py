"""What a process computes with: its code, its packages, the settings that change results."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import sys
from pathlib import Path

import jax

_ROOT = Path(__file__).parent.parent
_PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow", "tokenizers"),
    *("grain", "pyarrow", "safetensors", "ml_collections"),
)
_SETTINGS = (
    *("jax_enable_x64", "jax_default_matmul_precision", "jax_numpy_dtype_promotion"),
    *("jax_default_prng_impl", "jax_threefry_partitionable", "jax_disable_most_optimizations"),
    "jax_platforms",
)
_VARIABLES = ("APE_JAX_MKL", "APE_JAX_ATTENTION", "NVIDIA_TF32_OVERRIDE")
_ELSEWHERE = ("--xla_dump", "--xla_gpu_dump", "--xla_cpu_parallel_codegen_split_count")


def facts() -> dict[str, str]:
    """By name, all that must be the same in the processes of a run before any file is read."""
    found = {"the code of ape_jax": code()}
    found |= {f"the version of {name}": _version(name) for name in _PACKAGES}
    found["the version of Python"] = ".".join(map(str, sys.version_info[:2]))
    found |= {name: str(getattr(jax.config, name, None)) for name in _SETTINGS}
    found |= {name: os.environ.get(name, "not set") for name in _VARIABLES}
    flags = sorted(set(os.environ.get("XLA_FLAGS", "").split()))
    found["XLA_FLAGS"] = " ".join(f for f in flags if not f.startswith(_ELSEWHERE)) or "not set"
    return found


@functools.cache
def code() -> str:
    """The start of a sha256 over all Python files of this package."""
    found = hashlib.sha256()
    for file in sorted(_ROOT.rglob("*.py")):
        contents = hashlib.sha256(file.read_bytes()).hexdigest()
        found.update(f"{file.relative_to(_ROOT).as_posix()} {contents}\n".encode())
    return found.hexdigest()[:12]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
