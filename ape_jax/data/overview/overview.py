"""All figures of a pairs source in one pass over its captions, block by block."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from ape_jax.data.overview import headers, repeats
from ape_jax.data.overview.repeats import CaptionRepeats, Repeats
from ape_jax.data.overview.scripts import Scripts
from ape_jax.data.overview.spread import Spread, Tally
from ape_jax.data.pairs import Pairs
from ape_jax.terminal.progress import PATIENCE, Progress

if TYPE_CHECKING:
    import pyarrow as pa

_EXTREMES = 8
_SAMPLE = 1000  # Images whose header is read.
_COMPARED = 20_000
_COMPARED_BYTES = 2**28

Lengths = Callable[[list[str]], Int[np.ndarray, " n"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
    """Lengths of captions in tokens of a tower.

    Attributes:
      tower: its spec.
      limit: tokens that the tower takes, special ones included.
      lengths: tokens of each caption, special ones included, before any is cut.
    """

    tower: str
    limit: int
    lengths: Spread

    @property
    def cut(self) -> int:
        """Number of captions that the tower cuts."""
        return self.lengths.above(self.limit)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overview:
    """What a pairs source holds.

    Attributes:
      images: number of images.
      captions: number of captions.
      per_image: captions an image.
      characters: characters a caption.
      words: words a caption, which are what stands between white space.
      tokens: tokens a caption, where a tower was named.
      scripts: captions by script, the most frequent first.
      same_caption: captions that several images have.
      same_image: images of equal bytes.
      sizes: of a sample of images.
      longest: images of the longest captions, by characters.
      shortest: images of the shortest captions.
      samples: some images, evenly spaced.
      negatives: number of negative captions.
    """

    images: int
    captions: int
    per_image: Spread
    characters: Spread
    words: Spread
    tokens: Tokens | None
    scripts: Mapping[str, int]
    same_caption: Repeats
    same_image: Repeats
    sizes: headers.Sizes
    longest: Sequence[int]
    shortest: Sequence[int]
    samples: Sequence[int]
    negatives: int = 0

    def record(self) -> dict[str, Any]:
        """The figures for JSON; images are their indices."""
        spreads = ("per_image", "characters", "words")
        made: dict[str, Any] = {"images": self.images, "captions": self.captions}
        made |= {name: getattr(self, name).record() for name in spreads}
        made |= {"negatives": self.negatives} if self.negatives else {}
        if self.tokens is not None:
            how = {"tower": self.tokens.tower, "limit": self.tokens.limit, "cut": self.tokens.cut}
            made["tokens"] = {**self.tokens.lengths.record(), **how}
        return {
            **made,
            "scripts": dict(self.scripts),
            "same_caption": self.same_caption.record(),
            "same_image": self.same_image.record(),
            "sizes": self.sizes.record(),
            "longest": list(self.longest),
            "shortest": list(self.shortest),
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """How a tower counts tokens.

    Attributes:
      tower: its spec.
      limit: tokens that it takes.
      lengths: texts -> tokens of each, special ones included, before any is cut.
    """

    tower: str
    limit: int
    lengths: Lengths


def overview(
    pairs: Pairs,
    *,
    tokenizer: Tokenizer | None = None,
    samples: int = 10,
    everything: bool = False,
) -> Overview:
    """Takes all figures of pairs.

    Args:
      pairs: the pairs.
      tokenizer: counts tokens; None leaves them out.
      samples: number of images to show.
      everything: whether all images are compared and looked at, and not the first ones or a sample.
    """
    texts = _texts(pairs, tokenizer)
    count = len(pairs)
    chosen = np.arange(count) if everything else spaced(count, _SAMPLE)
    return Overview(
        images=count,
        captions=pairs.num_captions,
        per_image=texts.per_image.spread(),
        characters=texts.characters.spread(),
        words=texts.words.spread(),
        tokens=texts.tokens,
        scripts=texts.scripts.counts,
        same_caption=texts.repeats.result(),
        same_image=repeats.repeated_images(
            count,
            pairs.image_ref,
            limit=count if everything else _COMPARED,
            most_bytes=2**63 - 1 if everything else _COMPARED_BYTES,
        ),
        sizes=headers.sizes(pairs.image_ref, chosen),
        longest=texts.extremes.longest,
        shortest=texts.extremes.shortest,
        samples=spaced(count, samples).tolist(),
        negatives=pairs.num_negatives,
    )


def spaced(count: int, most: int) -> Int[np.ndarray, " n"]:
    """At most so many of `count` indices, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, max(count - 1, 0), min(count, most)).astype(np.int64))


class _Texts:
    """Figures of captions, added up over blocks."""

    def __init__(self, tokenizer: Tokenizer | None):
        self.per_image, self.characters, self.words = Tally(), Tally(), Tally()
        self.scripts, self.repeats, self.extremes = Scripts(), CaptionRepeats(), _Extremes()
        self._tokenizer, self._tokens = tokenizer, Tally()

    def add(self, first: int, block: pa.Array) -> None:
        """Adds the captions of the images from `first` on: list<string> [n]."""
        import pyarrow as pa
        import pyarrow.compute as pc

        def numbers(name: str, values: pa.Array) -> Int[np.ndarray, " n"]:
            found = pc.call_function(name, [values])
            return found.to_numpy(zero_copy_only=False).astype(np.int64)

        counts = numbers("list_value_length", block)
        texts = block.flatten().cast(pa.large_string())
        images = np.repeat(np.arange(first, first + len(block)), counts)
        lengths = numbers("utf8_length", texts)
        trimmed = pc.call_function("utf8_trim_whitespace", [texts])
        words = pc.call_function("utf8_split_whitespace", [trimmed])
        self.per_image.add(counts)
        self.characters.add(lengths)
        self.words.add(numbers("list_value_length", words))
        self.scripts.add(texts)
        self.repeats.add(texts, images)
        self.extremes.add(lengths, images)
        if self._tokenizer is not None:
            self._tokens.add(self._tokenizer.lengths(texts.to_pylist()))

    @property
    def tokens(self) -> Tokens | None:
        """Lengths in tokens, where a tower was named."""
        asked = self._tokenizer
        if asked is None:
            return None
        return Tokens(tower=asked.tower, limit=asked.limit, lengths=self._tokens.spread())


class _Extremes:
    """Images of the longest and of the shortest captions; equally long ones in their order."""

    def __init__(self) -> None:
        self._long: list[tuple[int, int]] = []
        self._short: list[tuple[int, int]] = []

    def add(self, lengths: Int[np.ndarray, " n"], images: Int[np.ndarray, " n"]) -> None:
        self._long = _least(self._long, -lengths, images)
        self._short = _least(self._short, lengths, images)

    @property
    def longest(self) -> list[int]:
        return [image for _, image in self._long]

    @property
    def shortest(self) -> list[int]:
        return [image for _, image in self._short]


def _least(
    known: list[tuple[int, int]], values: Int[np.ndarray, " n"], images: Int[np.ndarray, " n"]
) -> list[tuple[int, int]]:
    """The images of the least values, each once."""
    order = np.argsort(values, kind="stable")
    best: dict[int, int] = {image: value for value, image in known}
    for i in order[: _EXTREMES * 8]:
        best.setdefault(int(images[i]), int(values[i]))
    return heapq.nsmallest(_EXTREMES, ((value, image) for image, value in best.items()))


def _texts(pairs: Pairs, tokenizer: Tokenizer | None) -> _Texts:
    texts, first = _Texts(tokenizer), 0
    progress = Progress("looking at captions", len(pairs), "images", after=PATIENCE)
    for block in pairs.captions():
        texts.add(first, block)
        first += len(block)
        progress.update(first)
    return texts
