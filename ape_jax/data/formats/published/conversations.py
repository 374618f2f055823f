"""Conversations about images, as LLaVA and ShareGPT4V are published.

`[{"image": "coco/train2017/1.jpg", "conversations": [{"from": "human", "value": "<image> What?"},
{"from": "gpt", "value": "a cat"}]}]`: the caption is the first answer.

References:
  Liu et al., `Visual Instruction Tuning <https://arxiv.org/abs/2304.08485>`_, 2023.
  Chen et al., `ShareGPT4V <https://arxiv.org/abs/2311.12793>`_, 2023.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ape_jax.data.cells import shorten
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.formats.published.documents import elements, look
from ape_jax.data.formats.published.places import counted, folders, only_captions, only_whole
from ape_jax.data.formats.tables.opened import packed
from ape_jax.data.rows import Ask, Broken, FileRows, Row, asked_fields
from ape_jax.errors import UserError

_ANSWERS = frozenset({"gpt", "assistant", "model", "bot"})
_PLACE = "<image>"
_FOLDERS = ("train2017", "coco/train2017", "data", "llava_pretrain", "LLaVA-Pretrain")


def read_conversations(path: str, ask: Ask) -> FileRows:
    """Reads a list of conversations, a row a conversation; what is taken is said.

    Args:
      path: the document; images lie beside it or in `images/`.
      ask: what is asked.

    Raises:
      UserError: labels or a split are wanted, the document is damaged, or no conversation has an
        image.
    """
    only_captions(ask, path)
    only_whole(ask, path)
    return FileRows(rows=_rows(path, ask), base=folders(path, *_FOLDERS), named=True)


def is_conversations(path: str) -> bool:
    """Tests for a list of objects with turns."""
    first = look(path).get("")
    return isinstance(first, dict) and isinstance(first.get("conversations"), list)


def _rows(path: str, ask: Ask) -> Iterator[Row | Broken]:
    total = without = later = 0
    for element in elements(path, ask.say):
        total += 1
        row = _row(element.value, element.at, ask)
        if row is None:
            without += 1
            continue
        if isinstance(row, Row):
            later += len(_answers(element.value["conversations"])) - 1
        yield row
    if total and without == total:
        raise UserError(f"{path}: none of {total} conversations has an 'image'; write its path")
    rest = f"; {counted(later, 'later answer')} not read" if later else ""
    ask.say(f"{path}: the caption is the first answer of each conversation, without {_PLACE}{rest}")
    if without:
        ask.say(f"{path}: {counted(without, 'conversation')} without an image not read")


def _row(item: Any, at: str, ask: Ask) -> Row | Broken | None:
    """A row, or None for a conversation without an image."""
    if not isinstance(item, dict):
        return Broken(at, "damaged row", f"found {shorten(item)}; write a conversation")
    image, turns = item.get("image"), item.get("conversations")
    if image is None:
        return None
    if isinstance(image, list):
        if len(image) != 1:
            reason = f"the conversation has {len(image)} images; a pair has one"
            return Broken(at, "no image", reason)
        image = image[0]
    answers = _answers(turns)
    if not answers and "captions" not in ask.columns:
        reason = f"'conversations' is {shorten(turns)}; write turns, one of them from 'gpt'"
        return Broken(at, "empty caption", reason)
    caption = answers[0] if answers else None
    if isinstance(caption, str):
        caption = caption.replace(_PLACE, "")
    return Row(at, {**asked_fields(item, ask), "image": image, "captions": caption})


def _answers(turns: Any) -> list[Any]:
    turns = turns if isinstance(turns, list) else []
    return [
        turn.get("value")
        for turn in turns
        if isinstance(turn, dict) and str(turn.get("from")) in _ANSWERS
    ]


CONVERSATIONS = PairsFormat(
    name="conversations",
    spec="*.json of conversations (LLaVA, ShareGPT4V)",
    suffixes=packed(".json"),
    matches=is_conversations,
    read=read_conversations,
)
