"""What can be asked of a run on a page: texts for images, images for captions, folders for a place.

Plain functions of plain values, which know nothing of the page; whatever a visitor can do wrong is
a `UserError` of one sentence.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float
from PIL import Image

from ape_jax import search
from ape_jax.config.outside import is_precomputed
from ape_jax.data.cells import printable
from ape_jax.data.options import Reading
from ape_jax.data.specs import open_pairs
from ape_jax.errors import UserError
from ape_jax.images.decode import ImageError, ImageRef, load_image
from ape_jax.parallel.hosts import say
from ape_jax.runs import widths
from ape_jax.runs.encoder import Encoder
from ape_jax.runs.restore import restore
from ape_jax.search import items
from ape_jax.search.build import Tick
from ape_jax.storage.disk import cache_dir

MOST_CHARACTERS = 2000
MOST_CAPTIONS = 5000
_EXAMPLES = 6
_SHORT = 80  # Characters of an example; longer captions make poor buttons.
_SAMPLE = 400  # Training images that are shown where a run has no evaluation pairs.
_PICTURE = (1024, 1024)  # What a click opens, so that nothing larger than this is served.
# A batch is filled up to its size: one image would cost as much as many.
_SETTINGS = {"eval.batch": 8}


@dataclasses.dataclass(frozen=True)
class Seen:
    """An image that was found: a thumbnail and what to write under it."""

    picture: Image.Image
    words: str


@dataclasses.dataclass(frozen=True)
class Described:
    """A caption that was found, its cosine, and its share among all that it was compared with."""

    caption: str
    cosine: float
    share: float


class Desk:
    """A model, the collections that it can search, and the captions that it can choose from.

    Args:
      directory: of the run.
      index: one more collection to search, '' for none.

    Raises:
      UserError: for a run or an index that cannot be used.
    """

    def __init__(self, directory: str, index: str = ""):
        width = widths.settings(search.made_with(index) if index else None, "--index")
        run = restore(directory, {**_SETTINGS, **width})
        for side in ("image", "text"):
            if is_precomputed(run.config.side(side).tower):
                raise UserError(
                    f"--workdir: {run.source} takes vectors for {side}s, made elsewhere; a page "
                    "needs a run with two real towers"
                )
        self._run, self._model = run, Encoder(run)
        self._identity = search.identity(run)
        self._background = run.config.data.background
        self._collections: dict[str, search.Index] = {}
        self._captions: list[str] = []
        self._model.encode_text(["a picture"])  # Compiles, so that the first visitor need not wait.
        self._embedded: Float[np.ndarray, "n e"] | None = None
        if index:
            opened = search.open_index(index, self._identity)
            self._collections[f"index {opened.path.name}"] = opened
        for name, spec in run.config.data.eval.items():
            self._add_evaluation(name, spec)
        if not self._collections and run.config.data.pairs:
            self._add_training(run.config.data.pairs)

    @property
    def title(self) -> str:
        """What the page is called."""
        return f"ape_jax: {pathlib.Path(self._run.source).name}"

    @property
    def collections(self) -> list[str]:
        """The names of what can be searched."""
        return list(self._collections)

    @property
    def report(self) -> pathlib.Path | None:
        """The run's report.html, None where there is none."""
        file = pathlib.Path(self._run.source) / "report.html"
        return file if file.is_file() else None

    @property
    def examples(self) -> list[str]:
        """A few captions to try, evenly spaced among those that are known."""
        short = [text for text in dict.fromkeys(self._captions) if len(text) <= _SHORT]
        kept = np.linspace(0, len(short) - 1, min(_EXAMPLES, len(short))).astype(int)
        return [short[i] for i in kept]

    def example_image(self, count: int) -> tuple[Image.Image, list[Described]] | None:
        """An image of the first collection and the captions that it finds; None without any."""
        if not self._collections or not self._captions:
            return None
        index = next(iter(self._collections.values()))
        try:
            pixels = self._read(index.image(len(index) // 2))
        except UserError:  # It was there when it was indexed.
            return None
        return self._described(pixels, "", count)

    def images_for(self, text: str, collection: str | None, count: int) -> list[Seen]:
        """The images of a collection that a text describes best.

        Args:
          text: in any language that the text tower knows.
          collection: one of `collections`.
          count: how many.

        Raises:
          UserError: for a text that is empty or too long, or a collection that is not there.
        """
        return self._found(lambda: self._model.encode_text([_checked(text)]), collection, count)

    def images_like(self, file: str | None, collection: str | None, count: int) -> list[Seen]:
        """The images of a collection that are most like another image.

        Args:
          file: the image.
          collection: one of `collections`.
          count: how many.

        Raises:
          UserError: for a file that is no image, or a collection that is not there.
        """
        return self._found(
            lambda: self._model.encode_image([self._opened(file)]), collection, count
        )

    def captions_for(
        self, file: str | None, own: str, count: int
    ) -> tuple[Image.Image, list[Described]]:
        """What describes an image best.

        Args:
          file: the image.
          own: captions to choose from, one a line; '' takes those of the run's evaluation pairs.
          count: how many.

        Returns:
          A thumbnail of the image, and the best captions.

        Raises:
          UserError: for a file that is no image, or no captions.
        """
        return self._described(self._opened(file), own, count)

    def _found(
        self, embed: Callable[[], np.ndarray], collection: str | None, count: int
    ) -> list[Seen]:
        query = embed()
        if collection not in self._collections:
            raise UserError("there is nothing to search yet; index a folder first")
        index = self._collections[collection]
        (hits,) = index.search(query, int(count))
        return [self._seen(index, place, cosine) for place, cosine in hits]

    def _opened(self, file: str | None) -> np.ndarray:
        if not file:
            raise UserError("there is no image yet; drop one")
        return self._read(ImageRef(file, printable(pathlib.Path(file).name)))

    def _described(
        self, pixels: np.ndarray, own: str, count: int
    ) -> tuple[Image.Image, list[Described]]:
        captions = own_captions(own)
        if captions:
            ztxt = self._model.encode_text(captions)
        else:
            captions, ztxt = self._captions, self._evaluation_captions()
        cosines = (self._model.encode_image([pixels]) @ ztxt.T)[0].astype(np.float64)
        odds = np.exp(self._model.scale * (cosines - cosines.max()))
        shares = odds / odds.sum()
        best = np.argsort(-cosines, kind="stable")[: int(count)]
        found = [Described(captions[i], float(cosines[i]), float(shares[i])) for i in best]
        return self._thumbnail(pixels), found

    def take_folder(self, folder: str, tick: Tick | None = None) -> tuple[str, str]:
        """Indexes a folder, or brings its index up to date, so that it can be searched.

        Args:
          folder: on this machine.
          tick: is told how many images are encoded, and of how many.

        Returns:
          The name of the new collection, and what became of the folder's files.

        Raises:
          UserError: for a folder that is missing, empty or without a readable image.
        """
        written = folder.strip().strip("\"'")
        if len(written) > MOST_CHARACTERS:
            raise UserError("folder: this is no path; write the path of a folder of images")
        source = items.open_images(written, key="folder")
        added = self._add(source.spec, source, tick)
        left_out = f" (the first: {added.unreadable[0]})" if added.unreadable else ""
        return source.spec, f"{source.spec}: {added}{left_out}"

    def _add_evaluation(self, name: str, spec: str) -> None:
        if is_precomputed(spec):
            say(f"data.eval.{name} holds vectors: there is nothing to show of it")
            return
        source = items.open_images(
            spec, key=f"data.eval.{name}", reading=Reading.of(self._run.config.data)
        )
        say(f"{name}: {self._add(name, source, None)}")
        self._captions += [text for item in source.items for text in item.captions]

    def _add_training(self, spec: str) -> None:
        """A sample of the training pairs, so that a run without others has something to show."""
        source = items.open_images(
            spec, key="data.pairs", reading=Reading.of(self._run.config.data)
        )
        kept = np.linspace(0, len(source.items) - 1, min(_SAMPLE, len(source.items))).astype(int)
        some = tuple(source.items[i] for i in kept)
        name = f"training images ({len(some)} of {len(source.items)})"
        say(f"{name}: {self._add(name, dataclasses.replace(source, items=some), None)}")
        self._captions += [text for item in some for text in item.captions]

    def _add(self, name: str, source: items.Source, tick: Tick | None) -> search.Added:
        """Indexes a source in the cache folder, once for each model."""
        key = json.dumps([source.spec, self._identity], sort_keys=True).encode()
        slug = re.sub(r"[^A-Za-z0-9_.]+", "_", pathlib.PurePath(source.spec).name)[:32]
        path = cache_dir() / "indexes" / f"{slug}-{hashlib.sha256(key).hexdigest()[:12]}"
        options = {"run": self._run.source, "identity": self._identity, "key": "index"}
        added = search.add(path, source, self._model, tick=tick, **options)
        self._collections[name] = search.open_index(path, self._identity, key="index")
        return added

    def _evaluation_captions(self) -> Float[np.ndarray, "n e"]:
        """Embeddings of the evaluation captions; many are thinned."""
        if not self._captions:
            raise UserError(
                "the run has no evaluation captions; write some of your own, one a line"
            )
        if self._embedded is None:
            distinct = list(dict.fromkeys(self._captions))
            kept = np.linspace(0, len(distinct) - 1, min(MOST_CAPTIONS, len(distinct))).astype(int)
            self._captions = [distinct[i] for i in kept]
            self._embedded = self._model.encode_text(self._captions)
        return self._embedded

    def _seen(self, index: search.Index, place: int, cosine: float) -> Seen:
        entry = index.entries[place]
        captions = entry.captions or self._known.get(entry.name, ())
        words = captions[0] if captions else printable(pathlib.Path(entry.name).name)
        try:
            picture = self._thumbnail(self._read(index.image(place)))
        except UserError:  # It was there when it was indexed.
            picture, words = Image.new("RGB", (8, 8), "white"), f"{words} (no longer readable)"
        return Seen(picture, f"{cosine:.2f} {words}")

    @functools.cached_property
    def _known(self) -> Mapping[str, tuple[str, ...]]:
        """Captions of the run's own pairs by image file, for indexes of bare folders."""
        known: dict[str, tuple[str, ...]] = {}
        for spec in (*self._run.config.data.eval.values(), self._run.config.data.pairs):
            try:
                reading = Reading.of(self._run.config.data)
                precomputed = not spec or is_precomputed(spec)
                pairs = () if precomputed else open_pairs(spec, reading=reading)
            except UserError:  # They are elsewhere by now: file names it is.
                continue
            for pair in pairs:
                if isinstance(source := pair.image.source, str):
                    known.setdefault(os.path.abspath(source), pair.captions)
        return known

    def _read(self, image: ImageRef) -> np.ndarray:
        try:
            return load_image(image, background=self._background)
        except ImageError as error:
            raise UserError(str(error)) from error

    def _thumbnail(self, pixels: np.ndarray) -> Image.Image:
        small = Image.fromarray(pixels)
        small.thumbnail(_PICTURE)
        return small


def own_captions(text: str) -> list[str]:
    """The captions that a visitor wrote, one a line.

    Raises:
      UserError: for one that is too long, or too many.
    """
    captions = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if len(captions) > MOST_CAPTIONS:
        raise UserError(f"there are {len(captions)} captions; write at most {MOST_CAPTIONS}")
    return [_checked(caption) for caption in captions]


def _checked(text: str) -> str:
    text = text.strip()
    if not text:
        raise UserError("there is no text yet; write what to look for")
    if len(text) > MOST_CHARACTERS:
        raise UserError(f"the text has {len(text)} characters; write at most {MOST_CHARACTERS}")
    return text
