"""Making an index of images and asking one, from the command line."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from ape_jax import search
from ape_jax.config.outside import is_precomputed
from ape_jax.data.records import printable
from ape_jax.errors import UserError
from ape_jax.runs.aligned import AlignedModel
from ape_jax.runs.encoder import Encoder
from ape_jax.runs.restore import restore
from ape_jax.search import items

Found = tuple[dict[str, Any], str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Questions:
    """What to look for.

    Attributes:
      texts: texts to find images of.
      images: images to find similar ones of.
      k: how many images each.
      exact: whether to compare with every image of a large index.
    """

    texts: Sequence[str]
    images: Sequence[str]
    k: int
    exact: bool

    def __bool__(self) -> bool:
        """Whether anything is asked."""
        return bool(self.texts or self.images)


def index(workdir: str, images: str, place: str, questions: Questions) -> Found:
    """Brings an index up to date, then looks in it; either may be left out.

    Args:
      workdir: directory of the run; "" for the one that made the index, which is then only asked.
      images: folder of images or a pairs file, "" to leave the index as it is.
      place: directory of the index.
      questions: what to look for.

    Returns:
      Counts of images and hits (name, cosine) by question, and the text for people.

    Raises:
      UserError: for images, a run or an index that cannot be read or do not belong together.
    """
    found, lines = {}, []
    if images:
        run, found, line = _make(workdir, images, place)
        lines.append(line)
    else:
        run = _maker(workdir, search.maker(place))
    if questions:
        hits, table = _ask(run, place, questions)
        found, lines = {**found, **hits}, [*lines, table]
    return found, "\n".join(lines)


def _make(workdir: str, images: str, out: str) -> tuple[AlignedModel, dict[str, Any], str]:
    source = items.open_images(images, key="--images")  # Fails in no time.
    run = restore(workdir)
    if is_precomputed(run.config.image.tower):
        raise UserError(
            f"--workdir: {run.source} takes vectors and no images; there is no index of it"
        )
    added = search.add(out, source, Encoder(run), run=run.source, identity=search.identity(run))
    found = {
        "encoded": added.encoded,
        "gone": added.gone,
        "images": added.total,
        "kept": added.kept,
        "unreadable": len(added.unreadable),
    }
    lines = [f"left out: {reason}" for reason in added.unreadable[:20]]
    return run, found, "\n".join([*lines, f"{out}: {added}"])


def _ask(run: AlignedModel, place: str, questions: Questions) -> Found:
    opened = search.open_index(place, search.identity(run))
    model = Encoder(run)
    asked = [(text, model.encode_text([text])) for text in questions.texts]
    asked += [(path, model.encode_image([path])) for path in questions.images]
    found, lines = {}, []
    for what, z in asked:
        (hits,) = opened.search(z, questions.k, exact=questions.exact)
        lines.append(f"{printable(what)}, among {len(opened)} images:")
        for row, cosine in hits:
            entry = opened.entries[row]
            note = f"  {entry.captions[0]}" if entry.captions else ""
            lines.append(f"  {cosine:.3f}  {printable(entry.name)}{note}")
        found[what] = [[opened.entries[row].name, cosine] for row, cosine in hits]
    return found, "\n".join(lines)


def _maker(workdir: str, maker: str) -> AlignedModel:
    """The run of --workdir, else the one that made the index."""
    if not workdir and not os.path.isdir(maker):
        raise UserError(f"--index: it was made by {maker}, which is gone; say where with --workdir")
    return restore(workdir or maker, {"eval.batch": 8})  # A few queries want no large batch.
