"""The files that a spec of pairs names, wherever they are.

pairs.jsonl   shards/*.tar   a-{000..003}.tar   photos/   s3://bucket/a.parquet   a.csv::b.tar
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import urllib.parse
from collections.abc import Callable, Iterator

from ape_jax.config import outside
from ape_jax.config.sections import mixtures
from ape_jax.data import split
from ape_jax.data.formats import registry
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.places import folders, patterns
from ape_jax.data.remote import fetch
from ape_jax.data.rows import Ask, FileRows
from ape_jax.data.table import store
from ape_jax.errors import UserError
from ape_jax.parallel import hosts
from ape_jax.storage import files, nearby

_PART = re.compile(r"(?P<path>.+[^:]):(?P<part>[\w+-]+)")
_ARRAYS = re.compile(r"(?<=\.npy),")
_LFS = b"version https://git-lfs"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """A file of pairs.

    Attributes:
      path: absolute path, of a copy where the file is at a url.
      name: the path, or the url: what messages and ids say.
      part: what stands behind the name in the spec, as in `dataset_coco.json:test`.
    """

    path: str
    name: str
    part: str = ""


def parts_of(spec: str, key: str, say: Callable[[str], None] = hosts.say) -> list[store.Part]:
    """The files of one source, each with its format.

    Args:
      spec: a path, a pattern, a folder, a url, or a spec with a prefix.
      key: the config key to name in messages.
      say: takes one line on what was chosen or fetched.

    Raises:
      UserError: an unknown form, or a file that is missing or cannot be fetched.
    """
    if registry.is_named(spec):
        found = registry.find(spec, key=key)
        reader = None if found.images is None else _Lazy(found.images, spec, key)
        read = functools.partial(found.read, spec)
        return [store.Part(file=spec, stamp=found.stamp(spec, key), read=read, reader=reader)]
    return [_part(place, key, say) for place in places(spec, key, say)]


def places(spec: str, key: str, say: Callable[[str], None]) -> list[Place]:
    """The files that a path, pattern, folder or url stands for.

    Raises:
      UserError: one is missing, or cannot be fetched.
    """
    if fetch.is_url(spec):
        return list(_remote(spec, key, say))
    whole = _existing(spec, key, say)
    if whole is not None:
        return _of_path(whole, key, say)
    if (named := _PART.fullmatch(spec)) and _existing(named["path"], key, say) is not None:
        inner = places(named["path"], key, say)
        return [dataclasses.replace(place, part=named["part"]) for place in inner]
    found: list[str] = []
    written = _plain(spec)
    for path in patterns.expand_braces(written, key):
        matches = patterns.matching(path, key) if patterns.is_glob(path) else [path]
        found += matches
    missing = [path for path in found if not os.path.exists(path)]
    if missing:
        raise _missing(missing, found, key)
    return [place for path in found for place in _of_path(path, key, say)]


def _has_parts(path: str) -> bool:
    """Tests whether something in front of a part is a file, or a folder that is there."""
    return bool(re.search(r"\.\w+$", path)) or os.path.isdir(_plain(path))


def absolute(spec: str) -> str:
    """A spec whose paths are absolute; urls and names of data sets stay as they are.

    Example:
      >>> absolute("s3://bucket/a.tar"), absolute("/a/../b.tar::demo:icons:train")
      ('s3://bucket/a.tar', '/b.tar::demo:icons:train')
    """
    return mixtures.BETWEEN.join(_absolute(one) for one in spec.split(mixtures.BETWEEN))


def _absolute(one: str) -> str:
    if one.startswith(split.PREFIX):
        *head, inner = one.split(":", 4)
        return ":".join([*head, _absolute(inner)])
    if one.startswith(outside.PREFIX):
        paths = _ARRAYS.split(one.removeprefix(outside.PREFIX))
        return outside.PREFIX + ",".join(map(os.path.abspath, paths))
    stays = not one or registry.is_named(one) or fetch.is_url(one) or one.startswith("weights=")
    return one if stays else os.path.abspath(_plain(one))


def _of_path(path: str, key: str, say: Callable[[str], None]) -> list[Place]:
    absolute = os.path.abspath(path)
    found = [absolute]
    if os.path.isdir(absolute):
        found = folders.files_in(absolute, path, key, say)
    return [Place(path=file, name=file) for file in found]


def _existing(spec: str, key: str, say: Callable[[str], None]) -> str | None:
    """The path of a file or folder that is there under the name that was written."""
    plain = _plain(spec)
    if _exists(plain):
        return plain
    for other, what in (
        (plain.replace("\\", "/"), "with '/' for '\\'"),
        (urllib.parse.unquote(plain), "with its %-codes read"),
    ):
        if other != plain and _exists(other):
            say(f"{key}: there is no {plain!r}; taken {what}, as {other!r}")
            return other
    return None


def _plain(spec: str) -> str:
    """A path without `file://` and `~`."""
    if spec.lower().startswith("file://"):
        rest = spec[len("file://") :].removeprefix("localhost")
        return rest if _exists(rest) else urllib.parse.unquote(rest)
    return os.path.expanduser(spec)


def _exists(path: str) -> bool:
    return "\0" not in path and os.path.exists(path)


def _missing(missing: list[str], found: list[str], key: str) -> UserError:
    others = f" ({len(missing)} of {len(found)} files are missing)" if len(found) > 1 else ""
    path = missing[0]
    instead = nearby.instead_of(path) if "\0" not in path else ""
    if not instead and registry.by_suffix(path) is None:
        return UserError(f"{key}: {path!r} is of no known form; write {registry.supported()}")
    remedy = f"{instead}; correct the path" if instead else "correct the path"
    return UserError(f"{key}: there is no file {path!r}{others}; {remedy}")


def _remote(spec: str, key: str, say: Callable[[str], None]) -> Iterator[Place]:
    for pattern in patterns.expand_braces(spec, key):
        urls = [pattern]
        if "*" in pattern:
            urls = fetch.listed(pattern, key)
            if not urls:
                raise UserError(f"{key}: no file matches {pattern!r}; correct the pattern")
        for url in urls:
            path = fetch.local_copy(url, key, say)
            registry.find(path, key=key)
            yield Place(path=path, name=url)


def _part(place: Place, key: str, say: Callable[[str], None]) -> store.Part:
    if not os.path.isdir(place.path) and not os.path.isfile(place.path):
        raise UserError(f"{key}: {place.path!r} is neither a file nor a folder; correct the path")
    _check_pointer(place, key)
    chosen = registry.find(place.path, key=key)
    read = functools.partial(_read, chosen, place)
    if os.path.isdir(place.path):
        stamp = chosen.stamp(place.path, key)
    else:
        stamp = store.stamp_of(place.path, chosen.name)
        if chosen.prepare is not None:
            with _reading(place.name, key):
                chosen.prepare(place.path, say)
    if stamp and place.part:
        stamp = f"{stamp} {place.part}"
    return store.Part(file=place.name, stamp=stamp, read=read)


@contextlib.contextmanager
def _reading(name: str, key: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise UserError(f"{key}: {name!r} cannot be read ({e.strerror})") from e


def _check_pointer(place: Place, key: str) -> None:
    if os.path.isfile(place.path) and os.path.getsize(place.path) < 1024:
        with _reading(place.name, key), files.opened(place.path, place.name) as f:
            if f.read(len(_LFS)) == _LFS:
                raise UserError(
                    f"{place.name}: this is a pointer of Git LFS and not the file; run "
                    "`git lfs pull`"
                )


def _read(chosen: PairsFormat, place: Place, ask: Ask) -> FileRows:
    """The rows of a place; relative paths in a file at a url are relative to the url's folder."""
    found = chosen.read(place.path, dataclasses.replace(ask, part=place.part))
    if place.name != place.path and not found.base:
        return dataclasses.replace(found, base=(fetch.parent(place.name),))
    return found


class _Lazy:
    """Reads numbered images; their source is opened when the first is asked for."""

    def __init__(self, images: Callable[[str, str], Callable[[int], bytes]], spec: str, key: str):
        self._open = functools.cache(functools.partial(images, spec, key))

    def __call__(self, number: int) -> bytes:
        return self._open()(number)
