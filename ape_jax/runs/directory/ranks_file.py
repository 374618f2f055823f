"""`DIR/ranks.npz`: the rank of every query of a run's last evaluation (`eval.ranks`).

Whoever compares two runs on the same queries needs more than the mean of each: the queries are the
same, so their difference is known better than either mean.
"""

from __future__ import annotations

import hashlib
import pathlib
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from ape_jax.data.pairs import Pair
from ape_jax.errors import UserError
from ape_jax.evaluators.retrieval import Ranks
from ape_jax.parallel import hosts
from ape_jax.runs.directory import workdir as workdir_lib
from ape_jax.storage import atomic, disk, files

FILE = "ranks.npz"
_FIELDS = ("i2t", "t2i", "image_index")
_IDS = "id"


def write(
    path: pathlib.Path, pairs: Mapping[str, Sequence[Pair]], ranks: Mapping[str, Ranks]
) -> None:
    """Writes the ranks of all sets, on the first process.

    Args:
      path: the work directory.
      pairs: the images of each set, whose ids are kept as hashes.
      ranks: by set.
    """
    if not hosts.is_first():
        return
    arrays: dict[str, np.ndarray] = {}
    for name, found in ranks.items():
        arrays[f"{name}/{_IDS}"] = _hashes([pair.id for pair in pairs[name]])
        for field in _FIELDS:
            arrays[f"{name}/{field}"] = getattr(found, field).astype(np.int32)

    def fill(target: pathlib.Path) -> None:
        with target.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    with disk.write_errors(f"--workdir: {path / FILE}", again=workdir_lib.AGAIN):
        atomic.write(path / FILE, fill)


def read(path: pathlib.Path) -> dict[str, tuple[np.ndarray, Ranks]]:
    """Reads what `write` wrote: set -> (ids as hashes, uint64 [n], ranks).

    Raises:
      UserError: there is no such file, or it is damaged.
    """
    file = path / FILE
    try:
        with files.opened(file) as opened, np.load(opened, allow_pickle=False) as arrays:
            sets = sorted({key.rpartition("/")[0] for key in arrays.files})
            return {
                name: (
                    arrays[f"{name}/{_IDS}"],
                    Ranks(**{x: arrays[f"{name}/{x}"].astype(np.int64) for x in _FIELDS}),
                )
                for name in sets
            }
    except FileNotFoundError:
        raise UserError(f"{file} is not there; delete {path} and run it again") from None
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is damaged ({error}); delete {path} and run it again") from error


def _hashes(ids: Sequence[str]) -> np.ndarray:
    digests = (hashlib.sha256(one.encode("utf-8", "surrogatepass")).digest()[:8] for one in ids)
    return np.frombuffer(b"".join(digests), "<u8")
