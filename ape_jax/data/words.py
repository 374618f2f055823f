"""Augmentation of captions by leaving out words.

Random deletion of Wei and Zou, "EDA: Easy Data Augmentation Techniques" (arXiv 1901.11196, section
2). A variant is a caption like any other: each step samples one caption of an image. A frozen text
tower therefore encodes every variant once.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator

import numpy as np

from ape_jax.data.pairs import Pair, Pairs
from ape_jax.data.vectors import VectorPairs
from ape_jax.errors import UserError


def leave_out_words(pairs: Pairs, variants: int, rate: float, seed: int) -> Pairs:
    """Adds up to `variants` captions for each caption, with words left out.

    Words are what white space separates. A caption of a single word has no variant, nor has any
    language that is written without spaces.

    Args:
      pairs: images and captions.
      variants: number of variants of each caption; duplicates are dropped.
      rate: probability that a word is left out; at least one word stays.
      seed: seed of the variants, which depend on it and on their caption only.

    Raises:
      UserError: no caption has a variant.
    """
    made = [_varied(pair, variants, rate, seed) for pair in pairs]
    if isinstance(pairs, VectorPairs):
        varied: Pairs = pairs.with_captions(made)
    else:
        varied = Pairs.of(made, pairs.spec)
    if varied.num_captions == pairs.num_captions:
        raise UserError(
            f"config.augment.words: no caption of {pairs.spec} has words to leave out, which are "
            "what white space separates; write () or more variants and a higher rate"
        )
    return varied


def _varied(pair: Pair, variants: int, rate: float, seed: int) -> Pair:
    spoken = pair.languages or ("",) * len(pair.captions)
    found = dict.fromkeys(zip(pair.captions, spoken, strict=True))
    for caption, language in list(found):
        made = _variants(caption, variants, rate, seed)
        found |= dict.fromkeys((text, language) for text in made)
    languages = tuple(language for _, language in found) if pair.languages else ()
    captions = tuple(text for text, _ in found)
    return dataclasses.replace(pair, captions=captions, languages=languages)


def _variants(caption: str, variants: int, rate: float, seed: int) -> Iterator[str]:
    words = np.array(caption.split(), object)
    digest = hashlib.sha256(f"{seed} {caption}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:16], "little"))
    for _ in range(variants):
        kept = rng.random(len(words)) >= rate
        kept[rng.integers(len(words))] |= not kept.any()
        if not kept.all():
            yield " ".join(words[kept])
