"""Compressed tars, which are decompressed once into the cache folder.

An image of a tar is read by its position, and a compressed one has none.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ape_jax.errors import UserError
from ape_jax.storage import atomic, disk, files, lock, packed
from ape_jax.terminal.progress import Progress

# Images hardly compress and texts tenfold; more is a bomb, or a tar of one file of zeros.
_MOST_RATIO = 50
_ALWAYS_ALLOWED = 2**28
_KEPT_FREE = 2**30
_BLOCK = 2**20


def decompressed(path: str, say: Callable[[str], None]) -> str:
    """The path of a tar without compression: its own, or that of a copy in the cache folder.

    Args:
      path: a tar, compressed or not; its first bytes tell, and not its name.
      say: takes the line that says where the copy is.

    Raises:
      UserError: the file is damaged, grows beyond reason, or the copy cannot be written.
      OSError: it cannot be read.
    """
    with files.opened(path) as f:
        kind = packed.kind_of(f.read(8))
    if kind in ("", "zst"):  # What a tar of zstd needs is said by its reader.
        return path
    status = os.stat(path)
    known = f"{os.path.realpath(path)} {status.st_size} {status.st_mtime_ns}"
    name = hashlib.blake2b(known.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
    root = disk.cache_dir() / "tars"
    copy = root / f"{name}.tar"
    if not copy.exists():
        with disk.write_errors(f"The cache {root}", "set APE_JAX_CACHE to another directory"):
            root.mkdir(parents=True, exist_ok=True)
            busy = f"another process is decompressing {path}; waiting for it"
            with lock.exclusive(root / f"{name}.lock", busy, say):
                if not copy.exists():
                    atomic.write(copy, lambda to: _decompress(path, to, status.st_size))
        say(f"{path} is compressed: a copy without compression is in {root}")
    return str(copy)


def _decompress(path: str, to: Path, held: int) -> None:
    room = shutil.disk_usage(to.parent).free - _KEPT_FREE
    limit = max(_ALWAYS_ALLOWED, _MOST_RATIO * held)
    progress, done = Progress(f"decompressing {path}", None, "MB"), 0
    try:
        with packed.opened(path) as source, to.open("wb") as out:
            while block := source.read(_BLOCK):
                done += len(block)
                if done > limit:
                    raise UserError(
                        f"{path}: its {held} bytes decompress to more than {limit}, which no "
                        "tar of images does; repack it as a plain .tar"
                    )
                if done > room:
                    raise UserError(
                        f"{path}: there is no room for a copy without compression in {to.parent}; "
                        "free some space, or decompress it and name the plain .tar"
                    )
                out.write(block)
                progress.update(done >> 20)
    except packed.DAMAGED as e:
        if isinstance(e, OSError) and e.errno is not None:  # Of the disk; others have no number.
            raise
        raise _damaged(path, e) from e


def _damaged(path: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    return UserError(f"{path}: the compressed tar is damaged or cut ({reason}); download it again")
