"""Images alone: a folder, a pattern, a list of paths, or the images of pairs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from ape_jax.config.sections import mixtures
from ape_jax.data.cells import decode_text, printable
from ape_jax.data.formats import registry
from ape_jax.data.options import Reading
from ape_jax.data.pairs import Pair, Pairs
from ape_jax.data.places import patterns
from ape_jax.data.specs import open_pairs
from ape_jax.data.vectors import VectorPairs
from ape_jax.errors import UserError
from ape_jax.images import folders
from ape_jax.images.decode import ImageRef
from ape_jax.images.formats import is_image_name
from ape_jax.parallel import hosts
from ape_jax.storage import files

TAKES = "a folder of images, a pattern such as 'photos/*.jpg', a .txt of paths, or pairs"


def open_images(spec: str, *, key: str = "data.images", reading: Reading | None = None) -> Pairs:
    """Opens images without captions; nothing is decoded.

    Of pairs only the images are used, and a line says so.

    Args:
      spec: a folder (those below it included), an image, a pattern of images, a `.txt` with a path
        a line, relative to its own folder or the working directory, or what `open_pairs` takes;
        several with `::` between them.
      key: the config key to name in messages.
      reading: which columns of pairs, and what happens to rows and images that cannot be used; None
        stops at them.

    Returns:
      The images as pairs; those that came alone have no captions.

    Raises:
      UserError: for something else, or no images at all; as `open_pairs`.
    """
    reading = reading or Reading()
    mixture = mixtures.parse(spec, key)
    if mixture.weights is not None:
        raise UserError(
            f"{key}: {spec!r} has weights, and unpaired images have none; leave them out"
        )
    found = [_listed(os.path.expanduser(one), key, reading) for one in mixture.specs]
    if not any(found):
        return _of_pairs(spec, key, reading)
    parts = [
        _of_pairs(one, key, reading) if listed is None else listed
        for one, listed in zip(mixture.specs, found, strict=True)
    ]
    images = [pair for part in parts for pair in part]
    # One image under two names is two images, as in pairs.
    return Pairs.of((Pair(image=x.image, captions=(), id=x.id) for x in images), spec)


def _of_pairs(spec: str, key: str, reading: Reading) -> Pairs:
    pairs = open_pairs(spec, key=key, reading=reading)
    if isinstance(pairs, VectorPairs):
        raise UserError(f"{key}: {spec!r} holds vectors and no images; write {TAKES}")
    hosts.say(f"{key}: of {spec} the {len(pairs):,} images are used, and no caption")
    return pairs


def _listed(path: str, key: str, reading: Reading) -> list[Pair] | None:
    """The images that a spec lists by themselves; None where it names pairs."""
    if registry.is_named(path) or "\0" in path:
        return None
    if os.path.isdir(path):
        return _below(path, key)
    name, paths = path.lower(), None
    if not os.path.exists(path) and is_image_name(path):
        expanded = patterns.expand_braces(path, key)
        lists = (patterns.matching(x, key) if patterns.is_glob(x) else [x] for x in expanded)
        paths = [(printable(x), x, x) for some in lists for x in some]
    elif is_image_name(path):
        paths = [(printable(path), path, path)]
    elif name.endswith(".txt") and registry.looked_at(path) is None:
        paths = list(_lines(path, key))
    if paths is None:
        return None
    if not paths:
        raise UserError(f"{key}: {path!r} lists no image; write {TAKES}")
    _check_there(paths, key, reading)
    return list(_pairs(paths))


def _below(folder: str, key: str) -> list[Pair] | None:
    """The images below a folder; None where it holds none, but perhaps files of pairs."""
    root = os.path.abspath(folder)
    found = folders.images_below(root)
    if not found.paths:
        return None
    if notes := found.notes():
        hosts.say(f"{key}: {printable(folder)}: not read: {'; '.join(notes)}")
    named = ((printable(x), x, os.path.relpath(x, root)) for x in found.paths)
    return list(_pairs(named))


def _lines(path: str, key: str) -> Iterator[tuple[str, str, str]]:
    """Where each path of a list stands, the path, and its id."""
    base = os.path.dirname(os.path.abspath(path))
    try:
        content = files.read_bytes(path, f"{key}: {path}")
    except FileNotFoundError:
        raise UserError(f"{key}: there is no file {path!r}; correct the path") from None
    for number, line in enumerate(decode_text(content, path, "list of images").splitlines(), 1):
        if written := line.strip():
            beside = os.path.join(base, written)
            place = beside if os.path.exists(beside) or not os.path.exists(written) else written
            yield f"{path}:{number} ({printable(written)})", place, written


def _pairs(paths: Iterable[tuple[str, str, str]]) -> Iterator[Pair]:
    for name, path, own in paths:
        yield Pair(image=ImageRef(os.path.abspath(path), name), captions=(), id=own)


def _check_there(paths: list[tuple[str, str, str]], key: str, reading: Reading) -> None:
    """Stops at files that are missing, where they may not be left out."""
    missing = [name for name, path, _ in paths if not os.path.isfile(path)]
    share = len(missing) / len(paths)
    if missing and (reading.on_error == "error" or share > reading.max_skipped):
        raise UserError(
            f"{key}: {missing[0]}: there is no such image; {len(missing):,} of {len(paths):,} are "
            "missing; correct the paths (data.on_error='skip' leaves them out)"
        )
