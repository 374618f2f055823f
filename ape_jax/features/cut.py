"""Captions that are longer than a text tower takes: how many are cut, and become the same.

It is counted anew wherever it is asked for, since features in the cache say only how long a caption
is that was encoded: the few that are as long as can be are tokenised again.
"""

from __future__ import annotations

import collections
import dataclasses
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int

from ape_jax.terminal.progress import track
from ape_jax.towers.outside import OutsideEncoder
from ape_jax.towers.text.tokens import TextPrepare
from ape_jax.towers.tower import Tower

_TOGETHER = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cut:
    """Distinct captions that are cut.

    Attributes:
      cut: how many are.
      captions: of how many.
      tokens: to how many tokens, special ones included.
      same: how many of those that are cut begin like another one, and become the same as it.
    """

    cut: int
    captions: int
    tokens: int
    same: int

    def __str__(self) -> str:
        same = f", and {self.same} of these become the same as another" if self.same else ""
        return f"{self.cut} of {self.captions} captions are cut to {self.tokens} tokens{same}"


def cut_of(
    tower: Tower, texts: Sequence[str], what: str, lengths: Int[np.ndarray, " n"] | None = None
) -> Cut | None:
    """Counts the captions that a text tower cuts.

    Args:
      tower: a text tower with a tokenizer.
      texts: n distinct captions.
      what: for the progress line.
      lengths: of their encodings, where there is one for each token that the tower reads; None
        where they are not known.

    Returns:
      None where nothing is cut, or there is no longest length.
    """
    tokenizer = _Jax(tower.prepare) if tower.outside is None else _Outside(tower.outside)
    if tokenizer.longest is None or not len(texts):
        return None
    found: collections.Counter[bytes] = collections.Counter()
    for block in _candidates(texts, tokenizer, what, lengths):
        found.update(tokenizer.kept(block))
    cut = sum(found.values())
    if not cut:
        return None
    same = sum(count for ids, count in found.items() if count > 1 and ids)
    return Cut(cut=cut, captions=len(texts), tokens=tokenizer.longest, same=same)


def _candidates(
    texts: Sequence[str], tokenizer: _Jax | _Outside, what: str, lengths: np.ndarray | None
) -> Iterator[list[str]]:
    """The captions that may be cut, in blocks."""
    longest = tokenizer.longest or 0
    starts = range(0, len(texts), _TOGETHER)
    for start in track(starts, f"looking for long {what}", len(starts), "blocks of 4096"):
        block = texts[start : start + _TOGETHER]
        if lengths is not None:
            long = lengths[start : start + _TOGETHER] >= longest
            chosen = [block[i] for i in np.flatnonzero(long)]
        else:
            room = longest - tokenizer.around
            chosen = [text for text in block if _most_tokens(text) > room]
        if chosen:
            yield chosen


def _most_tokens(text: str) -> int:
    """Bytes of a text in the longest of the forms that tokenizers bring texts into."""
    if text.isascii():
        return len(text)
    forms = [text, text.lower()]
    forms += [unicodedata.normalize(name, form) for name in ("NFD", "NFKD") for form in forms]
    return max(len(form.encode()) for form in forms)


class _Jax:
    """The tokenizer of a tower that JAX runs."""

    def __init__(self, prepare: TextPrepare):
        self._prepare, self.longest = prepare, prepare.max_length
        self.around = prepare.special + len(prepare.prefix.encode()) + 1

    def kept(self, texts: list[str]) -> Iterator[bytes]:
        """The tokens that are left of those texts that are cut."""
        room = self._prepare.max_length - self._prepare.special
        for body in self._prepare.bodies(texts):
            if len(body) > room:
                yield np.asarray(self._prepare.cut(body, room), np.int32).tobytes()


class _Outside:
    """The tokenizer of a tower that another library runs."""

    around = 1 << 30  # How it tokenises is not known: every text is looked at.

    def __init__(self, encoder: OutsideEncoder):
        self._encoder = encoder
        self.longest: int | None = getattr(encoder, "max_length", None)

    def kept(self, texts: list[str]) -> Iterator[bytes]:
        """The tokens that are left of those texts that are cut; b"" where they are not known."""
        lengths = np.asarray(self._encoder.lengths(texts))
        long = [texts[i] for i in np.flatnonzero(lengths > (self.longest or 0))]
        if not long:
            return
        ids = self._encoder.prepare(long).get("input_ids")
        yield from (
            (b"" for _ in long) if ids is None else (np.asarray(row).tobytes() for row in ids)
        )
