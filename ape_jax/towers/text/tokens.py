"""Text to token ids: the `prepare` of every text tower."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int32, Int64

from ape_jax.errors import UserError
from ape_jax.towers.text import guard, token_files

if TYPE_CHECKING:
    import tokenizers

# Lengths are rounded up to this, so that a jitted tower meets few shapes.
_LENGTH_STEP = 8

Ids = Sequence[int] | Int32[np.ndarray, "_"]
Encode = Callable[[list[str]], list[list[int]]]


@dataclasses.dataclass(frozen=True, eq=False)
class TextPrepare:
    """Texts to the batch of a text tower.

    Truncation cuts the text and keeps the special tokens round it, as transformers does with
    `truncation=True`. Padding stands behind a text wherever the tokenizer would put it: it is
    masked. Only a tower that attends to it (`fills`) has it where the tokenizer does. Calls keep
    no state, so threads may share one object.

    Example:
      `tower.prepare(["a cat", "two dogs"])["ids"].shape == (2, 8)`

    Attributes:
      encode: texts to ids without special tokens, unpadded and untruncated.
      before: special ids in front of a text, `[CLS]`.
      after: special ids behind a text, `[SEP]`.
      pad_id: the id at padded positions.
      max_length: the longest sequence given to the tower, special tokens included.
      prefix: put in front of each text, such as E5's "query: ".
      fills: every text is padded to `max_length`, and padding is not masked: for towers that
        attend to it.
      cuts_left: a text that is too long loses its beginning and not its end.
      pads_left: with `fills`, padding stands before a text.
      specials: ids of the tokenizer's special tokens.
      beyond: those that the tower's table has no row for, as no text needs them.
    """

    encode: Encode = dataclasses.field(repr=False)
    before: tuple[int, ...]
    after: tuple[int, ...]
    pad_id: int
    max_length: int
    prefix: str = ""
    fills: bool = False
    cuts_left: bool = False
    pads_left: bool = False
    specials: frozenset[int] = dataclasses.field(default=frozenset(), repr=False)
    beyond: frozenset[int] = frozenset()

    def __call__(
        self, texts: Sequence[str], length: int | None = None
    ) -> dict[str, Int32[np.ndarray, "B T"] | Bool[np.ndarray, "B T"]]:
        """Tokenise, truncate and pad.

        Args:
          texts: the texts, at least one.
          length: T; longer texts are cut. None: the longest text's length rounded up to a
            multiple of 8, at most `max_length`. With `fills`, T is `max_length`.

        Returns:
          `{"ids": i32 [B, T], "mask": bool [B, T]}`; the mask is True at real tokens, with
          `fills` everywhere.

        Raises:
          UserError: no texts, something that is not a text or of which the tokenizer leaves
            nothing, or a length out of range.
        """
        return self.pad(self.bodies(texts), length)

    def bodies(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text before any truncation, without special ones.

        Raises:
          UserError: as the call itself does.
        """
        texts = _checked_texts(texts)
        bodies = self.encode([self.prefix + text for text in texts])
        if not self.special and not self.fills and not all(bodies):
            empty = texts[[bool(body) for body in bodies].index(False)]
            raise UserError(
                f"the tokenizer leaves nothing of the text {empty[:80]!r}; leave it out"
            )
        for text, body in zip(texts, bodies) if self.beyond else ():
            if not self.beyond.isdisjoint(body):
                raise UserError(
                    f"the text {text[:80]!r} holds a special token of the tokenizer that the "
                    "weights have no row for; leave that out"
                )
        return bodies

    def cut(self, body: Ids, room: int) -> Ids:
        """The ids of a text that are kept where there is room for so many."""
        return body[-room:] if self.cuts_left and len(body) > room else body[:room]

    def pad(
        self, bodies: Sequence[Ids], length: int | None = None
    ) -> dict[str, Int32[np.ndarray, "B T"] | Bool[np.ndarray, "B T"]]:
        """The batch of texts that are tokenised already: the call with `bodies` for texts."""
        limit = self.max_length if self.fills else self._checked_length(length)
        room = limit - self.special
        if self.fills:
            length = limit
        elif length is None:
            longest = min(max(map(len, bodies)), room) + self.special
            length = min(-(-max(longest, 1) // _LENGTH_STEP) * _LENGTH_STEP, limit)
        ids = np.full((len(bodies), length), self.pad_id, np.int32)
        mask = np.full((len(bodies), length), self.fills)
        for row, body in enumerate(bodies):
            tokens = (*self.before, *self.cut(body, room), *self.after)
            first = length - len(tokens) if self.fills and self.pads_left else 0
            ids[row, first : first + len(tokens)] = tokens
            mask[row, first : first + len(tokens)] = True
        return {"ids": ids, "mask": mask}

    def prompt_length(self) -> int:
        """Tokens at the front of a text that are those of the prefix, special ones included.

        As sentence-transformers counts them: of the prefix alone, without a special token at its
        end; 0 without a prefix.
        """
        if not self.prefix:
            return 0
        body = self.encode([self.prefix])[0]
        length = min(len(body) + self.special, self.max_length)
        last = self.after[-1] if self.after else body[-1] if body else -1
        return length - (last in self.specials)

    @property
    def special(self) -> int:
        """Number of special tokens a text gets."""
        return len(self.before) + len(self.after)

    def lengths(self, texts: Sequence[str]) -> Int64[np.ndarray, "B"]:
        """Tokens of each text, special ones included, before any truncation: i64 [B]."""
        bodies = self.encode([self.prefix + text for text in _checked_texts(texts)])
        least = self.max_length if self.fills else 0
        return np.array([max(len(body) + self.special, least) for body in bodies])

    def _checked_length(self, length: int | None) -> int:
        if length is None:
            return self.max_length
        least = self.special + 1
        if not least <= length <= self.max_length:
            raise UserError(
                f"a text length of {length} tokens is not possible with this text tower; "
                f"write a length from {least} to {self.max_length}"
            )
        return length


def load_prepare(
    directory: str | Path,
    *,
    vocab_size: int,
    max_length: int,
    prefix: str | None = None,
    fills: bool = False,
) -> TextPrepare:
    """The tokenizer of a text tower's directory.

    It is the one that transformers.AutoTokenizer makes (`auto.py`), as sentence-transformers sets
    it; code from the directory is never run.

    Args:
      directory: the tower's directory.
      vocab_size: rows of the tower's token table.
      max_length: the longest sequence to make.
      prefix: None: the default prompt of config_sentence_transformers.json, else "".
      fills: see `TextPrepare`.

    Raises:
      UserError: no or a broken tokenizer, a tokenizer that has ids beyond `vocab_size`, or a
        `max_length` that leaves no room for text.
    """
    directory = Path(directory)
    made = token_files.load(directory)
    before, after = _special_ids(made.backend, directory)
    pad = token_files.pad_id(directory, made.backend) if made.pad_id is None else made.pad_id
    pad = pad if pad < vocab_size else 0  # It is masked, whatever it is.
    return make_prepare(
        made.backend,
        str(directory),
        before=before,
        after=after,
        pad_id=pad,
        vocab_size=vocab_size,
        max_length=max_length,
        prefix=token_files.default_prefix(directory) if prefix is None else prefix,
        fills=fills,
        cuts_left=made.cuts_left,
        pads_left=made.pads_left,
    )


def make_prepare(
    backend: tokenizers.Tokenizer, label: str, *, vocab_size: int, **options: Any
) -> TextPrepare:
    """Makes the tokenizer of a tower.

    Args:
      backend: the tokenizer.
      label: where it is from, for messages.
      vocab_size: rows of the tower's token table.
      **options: of `TextPrepare`.

    Raises:
      UserError: a tokenizer that has ids beyond `vocab_size`, or a `max_length` that leaves no
        room for text.
    """
    vocabulary = backend.get_vocab(with_added_tokens=True)
    added = backend.get_added_tokens_decoder()
    special = frozenset(index for index, token in added.items() if token.special)
    beyond = frozenset(index for index in vocabulary.values() if index >= vocab_size)
    used = {options["pad_id"], *options["before"], *options["after"]}
    if not vocabulary or not beyond <= special or not beyond.isdisjoint(used):
        raise UserError(
            f"{label}: the tokenizer has ids up to {max(vocabulary.values(), default=-1)} but "
            f"the weights have a table of {vocab_size} tokens; put the tokenizer and the weights "
            "of one model together"
        )
    prepare = TextPrepare(
        encode=_BackendEncode(backend), specials=special, beyond=beyond, **options
    )
    if prepare.max_length <= prepare.special:
        raise UserError(
            f"{label}: max_length {prepare.max_length} leaves no room for text beside "
            f"{prepare.special} special tokens; write a larger max_length"
        )
    return prepare


@dataclasses.dataclass(frozen=True)
class _BackendEncode:
    """A class, not a closure, so that a worker process can be sent one."""

    backend: tokenizers.Tokenizer

    def __getstate__(self) -> tuple[str, bool]:
        return self.backend.to_str(), self.backend.encode_special_tokens

    def __setstate__(self, state: tuple[str, bool]) -> None:
        import tokenizers

        # The library's own way loses the second.
        object.__setattr__(self, "backend", tokenizers.Tokenizer.from_str(state[0]))
        self.backend.encode_special_tokens = state[1]

    def __call__(self, texts: list[str]) -> list[list[int]]:
        with guard.one_sentence(lambda why: f"the text tower's tokenizer failed ({why})"):
            encodings = self.backend.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


# Several, since the id of one may be that of a special token, too.
_PROBES = ("a", "b", "7 z", "m")


def _special_ids(
    backend: tokenizers.Tokenizer, directory: Path
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the post-processor puts before and after every text.

    Known once, they let a text be cut without the library's truncation, whose setting is state
    that threads would share.
    """
    remedy = "take the files of one model"
    with guard.one_sentence(lambda why: f"{directory}: a tokenizer that fails ({why}); {remedy}"):
        bodies = [backend.encode(text, add_special_tokens=False).ids for text in _PROBES]
        wholes = [backend.encode(text).ids for text in _PROBES]
    count = len(wholes[0]) - len(bodies[0])
    for start in range(count + 1):
        before, after = wholes[0][:start], wholes[0][len(wholes[0]) - (count - start) :]
        if any(bodies) and all(w == [*before, *b, *after] for w, b in zip(wholes, bodies)):
            return tuple(before), tuple(after)
    raise UserError(
        f"{directory}: the tokenizer does not put special tokens only before and after a text; "
        "use a tokenizer of the BERT, RoBERTa or CLIP kind"
    )


def _checked_texts(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise UserError(f"expected a list of texts, found the text {texts[:40]!r}; write [text]")
    if not isinstance(texts, Iterable):
        raise UserError(f"expected a list of texts, found {texts!r}; write [text]")
    texts = list(texts)
    if not texts:
        raise UserError("expected a list of texts, found an empty list; give at least one text")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(
                f"text {index} is {type(text).__name__} {str(text)[:40]!r}; give texts as str"
            )
        if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
            raise UserError(
                f"text {index} {text[:40]!r} holds half of a surrogate pair; give valid Unicode"
            )
    return texts
