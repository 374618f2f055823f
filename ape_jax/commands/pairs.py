"""Looking at pairs from the command line: figures, samples, broken rows, a page."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ape_jax.config.fields import is_columns
from ape_jax.config.outside import is_precomputed, is_torch
from ape_jax.data.cells import printable
from ape_jax.data.options import Reading
from ape_jax.data.overview.overview import Overview, Tokenizer, overview
from ape_jax.data.pairs import Pairs
from ape_jax.data.specs import open_pairs
from ape_jax.data.undecodable import undecodable
from ape_jax.data.vectors import VectorPairs
from ape_jax.errors import UserError
from ape_jax.pages import html, source
from ape_jax.pages.source.facts import facts
from ape_jax.storage import atomic, disk
from ape_jax.terminal import command
from ape_jax.towers import loading

_CAPTION = 100  # Characters of a caption of a sample.
_BAR = 24
_NEXT = re.compile(r",(?=(?:image|captions|id|label|negatives)=)")
_BROKEN = 3  # Rows of each kind.

Found = tuple[dict[str, Any], str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command was asked for.

    Attributes:
      data: the pairs.
      html: a file to write a page to, "" for none.
      text: a text tower to count tokens with, "" for none.
      verify: whether the source is read again, and every image is decoded and compared.
      columns: names of columns, as `image=NAME` or `captions=NAME,NAME`.
    """

    data: str
    html: str
    text: str
    verify: bool
    columns: Sequence[str] = ()


def look(asked: Asked) -> Found:
    """Opens pairs and says what they hold.

    Args:
      asked: what the command was asked for.

    Returns:
      Figures for scripts, and the text for people.

    Raises:
      UserError: for pairs or a tower that cannot be read, or a page that cannot be written.
    """
    tokenizer = _tokenizer(asked.text) if asked.text else None
    reading = Reading(
        columns=_columns(asked.columns), on_error="skip", max_skipped=1.0, again=asked.verify
    )
    pairs = open_pairs(asked.data, key="pairs", reading=reading)
    if isinstance(pairs, VectorPairs):
        raise UserError(f"pairs: {asked.data!r} holds vectors and no images; name images")
    if asked.verify:
        pairs = pairs.without(
            dict(undecodable(pairs.image_ref, range(len(pairs)), "decoding images"))
        )
    found = overview(pairs, tokenizer=tokenizer, everything=asked.verify)
    if asked.html:
        file = Path(asked.html).expanduser().absolute()
        with disk.write_errors(f"--html: {file}", "name another file"):
            atomic.write_text(file, source.document(found, pairs))
        command.say(f"written: {file}")
    return _record(found, pairs), _text(found, pairs)


def _columns(written: Sequence[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    # A comma stands between names, or before the next role.
    for text in itertools.chain.from_iterable(_NEXT.split(text) for text in written):
        role, _, names = text.partition("=")
        found[role] = tuple(names.split(","))
        if not is_columns(found):
            raise UserError(
                "--columns: expected image, captions, id, label or negatives, as in "
                f"captions=NAME,NAME; found {text!r}"
            )
    return found


def _tokenizer(spec: str) -> Tokenizer:
    if is_precomputed(spec):
        raise UserError(f"--text: {spec!r} stands for vectors and has no tokens; name a text tower")
    # The outline reads no weights; another library's tower has none.
    read = loading.read if is_torch(spec) else loading.outline
    tower, _ = read(spec, kind="text")
    prepare: Any = tower.prepare
    return Tokenizer(tower=spec, limit=prepare.max_length, lengths=prepare.lengths)


def _record(found: Overview, pairs: Pairs) -> dict[str, Any]:
    samples = [
        {"id": pair.id, "image": pair.image.name, "captions": list(pair.captions)}
        for pair in (pairs[row] for row in found.samples)
    ]
    broken = {
        "rows": pairs.problems.rows,
        "kinds": pairs.problems.counts(),
        "first": [problem._asdict() for problem in pairs.problems.first(_BROKEN)],
    }
    return {
        "spec": pairs.spec,
        "notes": list(pairs.table.notes),
        **found.record(),
        "cannot_be_used": broken,
        "samples": samples,
    }


def _text(found: Overview, pairs: Pairs) -> str:
    told = facts(found, pairs)
    width = max(len(name) for name, _ in told) + 2
    lines = [f"{name:{width}}{value}" for name, value in told]
    if found.per_image.min != found.per_image.max:
        largest = max(count for _, count in found.per_image.bins())
        lines.append("captions an image")
        for name, count in found.per_image.bins():
            bar = "#" * max(1, round(_BAR * count / largest))
            lines.append(f"  {name:>9}  {count:>9,}  {bar}")
    if pairs.table.notes:
        lines += ["how it was read", *(f"  {note}" for note in pairs.table.notes)]
    if len(pairs.problems):
        lines.append("rows that cannot be used, the first of each kind")
        broken = sorted(pairs.problems.first(_BROKEN), key=lambda problem: problem.kind)
        lines += [f"  {problem.kind}: {problem}" for problem in broken]
    lines.append("samples")
    for pair in (pairs[row] for row in found.samples):
        some = " | ".join(html.shortened(" ".join(c.split()), _CAPTION) for c in pair.captions[:3])
        more = f" and {len(pair.captions) - 3} more" if len(pair.captions) > 3 else ""
        lines.append(f"  {printable(pair.id)}: {some}{more}")
    return "\n".join(lines)
