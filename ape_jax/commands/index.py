"""Making an index of images, asking one and writing one as a table, from the command line."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from ape_jax import search
from ape_jax.config.outside import is_precomputed
from ape_jax.data.cells import printable
from ape_jax.errors import UserError
from ape_jax.parallel.actors import RayCluster
from ape_jax.runs import widths
from ape_jax.runs.aligned import AlignedModel
from ape_jax.runs.encoder import Encoder
from ape_jax.runs.reading import reading_of
from ape_jax.runs.restore import restore
from ape_jax.search import encoding, items
from ape_jax.search import table as tables
from ape_jax.search.identity import cut, difference

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Table that is to be written.

    Attributes:
      path: the file, "" for none.
      dtype: one of `search.table.DTYPES`.
    """

    path: str
    dtype: str


def index(
    workdir: str,
    images: str,
    place: str,
    questions: Questions,
    table: Table | None = None,
    cluster: RayCluster | None = None,
    dim: int | None = None,
) -> Found:
    """Brings an index up to date, looks in it, and writes it as a table; each may be left out.

    Args:
      workdir: directory of the run; "" for the one that made the index, which is then only asked.
      images: folder of images or a pairs file, "" to leave the index as it is.
      place: directory of the index.
      questions: what to look for.
      table: table to write, None for none.
      cluster: the Ray cluster whose actors encode, None for this process.
      dim: width of the embeddings, as `--dim`; None for that of the index, else for the run's own.

    Returns:
      Counts of images, hits (name, cosine) by question and the size of the table, and the text for
      people.

    Raises:
      UserError: for images, a run or an index that cannot be read or do not belong together, or a
        table that cannot be written.
    """
    table = table or Table(path="", dtype="float32")
    target = tables.check_target(table.path) if table.path else None
    found, lines, run = {}, [], None
    if images:
        run, found, line = _make(workdir, images, place, cluster, dim)
        lines.append(line)
    if questions:
        run = run or _maker(workdir, place, dim)
        hits, answer = _ask(run, place, questions)
        found, lines = {**found, **hits}, [*lines, answer]
    if target is not None:
        written, line = _write(place, target, table.dtype)
        found, lines = {**found, **written}, [*lines, line]
    return found, "\n".join(lines)


def _make(
    workdir: str, images: str, out: str, cluster: RayCluster | None, dim: int | None
) -> tuple[AlignedModel, dict[str, Any], str]:
    reading = reading_of(workdir)
    source = items.open_images(images, key="--images", reading=reading)  # Fails in no time.
    if dim is None and search.exists(out):
        dim = search.made_with(out, key="--out")
    run = restore(workdir, widths.settings(dim, "--dim"))
    if is_precomputed(run.config.image.tower):
        raise UserError(
            f"--workdir: {run.source} takes vectors and no images; there is no index of it"
        )
    identity = search.identity(run)
    with contextlib.ExitStack() as stack:
        encoder = Encoder(run)
        if cluster is not None:
            engine = encoding.on_ray(cluster, source, reading, same_encoder, workdir, identity)
            encoder = stack.enter_context(engine)
        added = search.add(out, source, encoder, run=run.source, identity=identity)
    found = {
        "encoded": added.encoded,
        "gone": added.gone,
        "images": added.total,
        "kept": added.kept,
        "unreadable": len(added.unreadable),
    }
    lines = [f"left out: {reason}" for reason in added.unreadable[:20]]
    return run, found, "\n".join([*lines, f"{out}: {added}"])


def same_encoder(workdir: str, identity: Mapping[str, str]) -> Encoder:
    """The encoder of a run, in a process that was told which.

    Args:
      workdir: directory of the run.
      identity: of its model where the process was asked for it.

    Raises:
      UserError: where the run is not here, or its model is another.
    """
    run = restore(workdir, widths.settings(cut(identity), "--dim"))
    if what := difference(identity, search.identity(run)):
        raise UserError(
            f"--workdir: {run.source} has {what} on {socket.gethostname()} than here; runs and "
            "towers must be the same on all machines"
        )
    return Encoder(run)


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


def _write(place: str, target: pathlib.Path, dtype: str) -> Found:
    opened = search.open_index(place, None)
    size, odd = tables.write(opened, target, dtype)
    width = opened.vectors.shape[1]
    line = f"{target}: {len(opened)} vectors of {width} numbers ({dtype}), {size / 1e6:,.1f} MB"
    line += f"; {odd} paths are not UTF-8 and have escapes" if odd else ""
    return {"--to": {"path": str(target), "rows": len(opened), "bytes": size}}, line


def _maker(workdir: str, place: str, dim: int | None) -> AlignedModel:
    """The run of --workdir, else the one that made the index; with embeddings as wide as there."""
    maker, made_with = search.maker(place), search.made_with(place)
    if not workdir and not os.path.isdir(maker):
        raise UserError(f"--index: it was made by {maker}, which is gone; say where with --workdir")
    settings = widths.settings(made_with if dim is None else dim, "--dim")
    # A few queries want no large batch.
    return restore(workdir or maker, {"eval.batch": 8, **settings})
