"""A directory of encoded features: found by what they depend on, filled shard by shard.

    <root>/images-pairs.jsonl-vit_s14-0f3a6c2b91de/
        cache.json                     the fingerprint, part by part
        shard-00000.rows ...           see `files.shards`
        shards.json                    what is on record of every shard; there when all are
        verified.json                  which files need not be read whole again, `storage.verified`

Until all are there, `shard-00000.json` is what is on record of that shard alone. Every file appears
under its name when it is whole and on the disk, so that a killed extraction leaves finished shards
and nothing that looks like one. Caches of the version before, with `shard-00000.array_record`, are
converted shard by shard.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from ape_jax.errors import UserError
from ape_jax.features import cache_record
from ape_jax.features.files import shards
from ape_jax.features.files.records import Records
from ape_jax.features.files.shards import Shard
from ape_jax.features.fingerprint import Fingerprint
from ape_jax.parallel import hosts
from ape_jax.storage import disk, lock, sealed, verified
from ape_jax.terminal.progress import track

_READERS = 4  # Threads that verify; hashing lets the others run.


class Cache:
    """One set of features on disk.

    Args:
      root: the directory of all caches.
      fingerprint: what these features depend on.
      count: how many items (images, captions) there are.
      per_shard: items a shard, the last of which may have fewer.

    Attributes:
      path: the directory.
    """

    def __init__(self, root: Path, fingerprint: Fingerprint, count: int, per_shard: int):
        self.fingerprint, self.count, self.per_shard = fingerprint, count, per_shard
        self._root = root
        # The readable part of the name depends on how pairs and tower were named.
        found = sorted(root.glob(f"*-{fingerprint.digest[:12]}")) if root.is_dir() else []
        self.path = found[0] if found else root / fingerprint.name
        self._records = Records(self.path, fingerprint.digest, [len(b) for b in self.blocks])

    @property
    def blocks(self) -> list[range]:
        """The items of each shard."""
        starts = range(0, self.count, self.per_shard)
        return [range(i, min(i + self.per_shard, self.count)) for i in starts]

    def file(self, k: int) -> Path:
        """The file of shard k."""
        return self._records.file(k)

    @property
    def is_ragged(self) -> bool:
        """True for captions, whose rows differ in length."""
        return self.fingerprint.kind == "captions"

    @functools.cached_property
    def shards(self) -> list[Shard]:
        """Records of a finished cache's shards.

        Raises:
          UserError: where the records are damaged or those of another cache.
        """
        return self._records.of_all()

    def is_complete(self) -> bool:
        """Tests by the records whether the cache is complete.

        Raises:
          UserError: where `cache.json` is not this cache's, or a record is damaged.
        """
        if not self._is_begun() or not self._records.are_whole():
            return False
        with contextlib.suppress(OSError):  # A reader need not be able to tidy up.
            for left_over in self.path.glob("shard-*.json"):
                left_over.unlink()
        return True

    def finished(self) -> dict[int, Shard]:
        """Records of the finished shards of an unfinished cache."""
        return self._records.of_finished()

    def verify(self, what: str, found: dict[int, Shard] | None = None) -> None:
        """Reads every byte of these shards, of all if none are named.

        Raises:
          UserError: naming the first file that is not as it was written.
        """
        chosen = dict(enumerate(self.shards)) if found is None else found
        with ThreadPoolExecutor(_READERS) as pool:
            done = pool.map(lambda item: shards.verify(self.file(item[0]), item[1]), chosen.items())
            for _ in track(done, f"verifying {what}", len(chosen), "shards"):
                pass

    def verify_changed(self, what: str) -> None:
        """Reads every byte of the shards that were written since they were last verified.

        Every process of a cluster takes part; each reads some of them, and all raise the error of
        one.

        Raises:
          UserError: naming the first file that is not as it was written.
        """
        named = {self.file(k): shard.sha256 for k, shard in enumerate(self.shards)}
        found = verified.states(named)
        changed = set(verified.changed(self.path, found))
        wanted = _agree_on(np.array([path in changed for path in named], bool))
        mine = np.flatnonzero(wanted)[jax.process_index() :: jax.process_count()].tolist()
        error: UserError | None = None
        try:
            self.verify(what, {k: self.shards[k] for k in mine})
        except UserError as damage:
            error = damage
        if hosts.any_of(error is not None):
            raise error or sealed.damaged(self.path, "holds a damaged shard")
        if wanted.any() and hosts.is_first():
            verified.note(self.path, named, found)

    @contextlib.contextmanager
    def filling(self, missing: str, say: Callable[[str], None]) -> Iterator[bool]:
        """Keeps other extractions out until the caller has written its shards.

        Every process of a cluster takes part; the first looks and decides for all. A cache of the
        version before is converted first.

        Args:
          missing: "error" where nothing may be encoded.
          say: takes one line for the user.

        Yields:
          Whether shards have to be written; False for a cache that is complete.

        Raises:
          UserError: where the cache is damaged, cannot be written or may not be made.
        """
        with contextlib.ExitStack() as stack:
            fill = hosts.is_first() and not self.is_complete()
            if fill:
                if missing == "error" and not (self._is_begun() and self._records.are_whole(None)):
                    raise self._missing()
                fill = stack.enter_context(self._locked(say))
            if jax.process_count() > 1:
                fill = bool(multihost_utils.broadcast_one_to_all(np.int32(fill)))
            yield fill
            if fill:
                self._finish()

    def write(self, k: int, rows: Sequence[np.ndarray | None]) -> None:
        """Writes shard k.

        Raises:
          UserError: where the disk is full or the directory cannot be written.
        """
        with self._write_errors():
            self.path.mkdir(parents=True, exist_ok=True)
            self._records.put(k, shards.write(self.file(k), rows, ragged=self.is_ragged))

    def require_space(self, need: int, what: str) -> None:
        """Raises UserError unless so many bytes are free."""
        remedy = "name another directory ('none' for memory only)"
        disk.require_space(self.path, need, f"cache.dir: {what} need", remedy)

    def _write_errors(self) -> contextlib.AbstractContextManager[None]:
        return disk.write_errors(
            f"cache.dir: {self.path}",
            "name another directory ('none' for memory only), and run again: what was finished is "
            "kept",
        )

    def _is_begun(self) -> bool:
        """Tests whether there is a directory with this cache's fingerprint."""
        record = self.path / "cache.json"
        try:
            found = sealed.read(record)
        except FileNotFoundError:
            # Unfinished and without it is what is left where a directory was removed under an
            # extraction; the record of each of its shards says whose it is.
            if self._records.is_there():
                raise sealed.damaged(record, "is missing") from None
            return False
        if found["parts"] != dict(self.fingerprint.parts) or found["kind"] != self.fingerprint.kind:
            raise sealed.damaged(record, "belongs to another cache")
        return True

    def _missing(self) -> UserError:
        stale = cache_record.describe_nearest(self._root, self.fingerprint)
        found = f"{self.path} is not finished" if self._is_begun() else stale
        return UserError(
            f"cache.missing: there is no cache of the {self.fingerprint.kind} of "
            f"{self.fingerprint.pairs} with {self.fingerprint.tower}"
            f"{f' ({found})' if found else ''}; run `python -m ape_jax.extract` or write 'encode'"
        )

    @contextlib.contextmanager
    def _locked(self, say: Callable[[str], None]) -> Iterator[bool]:
        """Holds the directory against other extractions; gives False if one has just filled it."""
        busy = f"another process is filling {self.path}; waiting for it"
        with contextlib.ExitStack() as stack:
            with self._write_errors():
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock.exclusive(self.path / ".lock", busy, say))
            if self.is_complete():
                yield False
                return
            self._begin(say)
            self._convert(say)
            yield not self.is_complete()

    def _begin(self, say: Callable[[str], None]) -> None:
        if self._is_begun():
            return
        if stale := cache_record.describe_nearest(self._root, self.fingerprint):
            say(stale)
        self._name()

    def _name(self) -> None:
        with self._write_errors():
            sealed.write(self.path / "cache.json", cache_record.contents(self.fingerprint))

    def _convert(self, say: Callable[[str], None]) -> None:
        """Writes the shards of the version before anew, as many as were finished."""
        old = self._records.of_the_version_before()
        if not old:
            return
        say(
            f"{self.path}: {len(old)} shards of an earlier version are put, once, into files that "
            "are read by rows; their bits stay the same"
        )
        with self._write_errors():
            self._records.convert(old, ragged=self.is_ragged)

    def _finish(self) -> None:
        """Puts the records of all shards into one file, once every process is done."""
        _meet("written")
        if hosts.is_first():
            self._seal()
        _meet("recorded")
        if not (self.path / "shards.json").exists():
            self._require_all(range(len(self.blocks)))

    def _seal(self) -> None:
        found = self.finished()
        self._require_all(k for k in range(len(self.blocks)) if k not in found)
        # Whoever removed the directory meanwhile has removed its name as well.
        if not (self.path / "cache.json").exists():
            self._name()
        with self._write_errors():
            self._records.seal(found)

    def _require_all(self, missing: Iterator[int] | range) -> None:
        if names := ", ".join(str(k) for k in missing):
            if jax.process_count() == 1:
                raise UserError(
                    f"cache.dir: shards {names} were removed from {self.path} while it was filled; "
                    "run again, which encodes them anew"
                )
            raise UserError(
                f"cache.dir: shards {names} that other processes wrote are not in {self.path}; "
                "several processes need a directory that they share"
            )


def _meet(where: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"ape_jax features {where}")


def _agree_on(mask: np.ndarray) -> np.ndarray:
    """The first process's mask, on all of them."""
    if jax.process_count() == 1:
        return mask
    return np.asarray(multihost_utils.broadcast_one_to_all(mask.astype(np.int32))) > 0
