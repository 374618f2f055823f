"""Texts and JSON beside an image, in a tar or in a folder: which of them are its captions.

Captions are the lines of `.txt`, of `.0.txt .1.txt ...` and of `.caption.txt`, as clip_benchmark
reads data sets for retrieval; else what `.json` has. A `.cls` is a label.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ape_jax.data.columns import CAPTION_NAMES, find_column
from ape_jax.data.rows import Ask
from ape_jax.errors import UserError

TEXTS = ("txt", "text", "caption", "captions")
"""Last parts of the endings of texts."""
_NUMBERED = re.compile(r"(?P<number>\d{1,9})\.txt")
_KEPT = ("id", "label")


class Unreadable(ValueError):
    """Reason why a text cannot be read: its ending and a phrase with the remedy."""

    def __init__(self, ending: str, reason: str):
        super().__init__(reason)
        self.ending, self.reason = ending, reason


class Sidecars:
    """Makes the fields of a row out of the files beside an image.

    Args:
      ask: what is asked; its columns are names of endings (`caption.txt`) and of JSON fields.
      where: where the files are, for messages: "tars" or "folders of images".
    """

    def __init__(self, ask: Ask, where: str):
        if ask.part:
            raise UserError(f"{ask.key}: {where} have no parts by name; leave ':{ask.part}' out")
        self._ask, self._where = ask, where
        self._chosen = bool(ask.columns)

    @property
    def named(self) -> bool:
        """Whether `fields` have the names that the table knows; else columns are the user's."""
        return not self._chosen

    def fields(
        self, files: Iterable[tuple[str, Callable[[], str]]], images: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The fields of a row.

        Args:
          files: endings and readers of the texts; a reader raises ValueError with a phrase.
          images: cells of images, that of the row as `image`, others by their endings.

        Raises:
          Unreadable: a text is damaged.
        """
        texts, others = self._read(files)
        if not self._chosen:
            return {**self._named(texts, others), "image": images["image"]}
        if "captions" in self._ask.columns:
            return {**others, **texts, **images}
        plain = {name: cell for name, cell in others.items() if not _is_caption(name)}
        return {**plain, **self._named(texts, others), **images}

    def _named(self, texts: Mapping[str, list[str]], others: Mapping[str, Any]) -> dict[str, Any]:
        named = {name: others[name] for name in _KEPT if name in others}
        if self._ask.wanted == "label":
            return named
        if not texts:
            inside = _caption_column(tuple(others))
            if inside is not None:
                named["captions"] = others[inside]
                self._say_left([n for n in others if n != inside and _is_caption(n)], inside)
            return named
        taken, lines = next(iter(texts.items()))
        named["captions"] = lines or ""
        # img2dataset writes the caption into both; the text is the convention.
        differ = [n for n, cell in others.items() if _is_caption(n) and not _same(cell, lines)]
        self._say_left([*list(texts)[1:], *differ], taken)
        return named

    def _read(
        self, files: Iterable[tuple[str, Callable[[], str]]]
    ) -> tuple[dict[str, list[str]], dict[str, Any]]:
        """The lines of each text, the best text first, and the other fields."""
        texts: dict[str, list[str]] = {}
        others: dict[str, Any] = {}
        numbered: list[tuple[int, list[str]]] = []
        for ending, read in files:
            try:
                if ending == "json":
                    others = {**_json(read()), **others}
                elif ending == "cls":
                    others["label"] = read().strip()
                elif match := _NUMBERED.fullmatch(ending):
                    numbered.append((int(match["number"]), self._lines(read())))
                elif ending.rpartition(".")[2] in TEXTS:
                    texts[ending] = self._lines(read())
            except ValueError as e:
                raise Unreadable(ending, str(e)) from e
        if numbered:
            # In the order of their numbers, behind a text without one.
            numbered.sort(key=lambda item: item[0])
            lines = [line for _, of_one in numbered for line in of_one]
            texts["txt"] = [*texts.get("txt", ()), *lines]
        return {name: texts[name] for name in sorted(texts, key=_rank)}, others

    def _lines(self, text: str) -> list[str]:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if len(lines) > 1:
            self._ask.say(f"{self._where}: each line of a text is a caption of its own")
        return lines

    def _say_left(self, left: Sequence[str], taken: str) -> None:
        if left:
            self._ask.say(
                f"{self._where}: captions from {taken!r}; not read: {', '.join(map(repr, left))} "
                "(data.columns={'captions': NAME} chooses)"
            )


def _rank(ending: str) -> tuple[bool, int]:
    """Place of a text's ending: `.txt` itself, then as the usual names of captions."""
    stem = ending.removesuffix(".txt")
    known = stem in CAPTION_NAMES
    return ending != "txt", CAPTION_NAMES.index(stem) if known else len(CAPTION_NAMES)


@functools.lru_cache(maxsize=4096)
def _caption_column(names: tuple[str, ...]) -> str | None:
    """As `find_column`: records of a set have the same few names."""
    return find_column(names, CAPTION_NAMES)


def _is_caption(name: str) -> bool:
    return _caption_column((name,)) is not None or "caption" in name.lower()


def _same(value: Any, lines: Sequence[str]) -> bool:
    """Whether a JSON field says nothing that the text does not."""
    if value is None or value == "":
        return True
    listed = value if isinstance(value, list) else str(value).splitlines()
    return [str(text).strip() for text in listed if str(text).strip()] == list(lines)


def _json(text: str) -> dict[str, Any]:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise ValueError(f"this is not JSON ({' '.join(str(e).split())}); correct it") from e
    if isinstance(read, list) and read and all(isinstance(item, str) for item in read):
        return {"captions": read}
    if not isinstance(read, dict):
        raise ValueError("write a JSON object with 'caption' or 'captions'")
    return read
