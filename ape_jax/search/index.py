"""Nearest-neighbour search in an index of embedded images."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from ape_jax import arguments
from ape_jax.data.cells import printable
from ape_jax.data.options import Reading
from ape_jax.errors import UserError, path_text, whole_number
from ape_jax.images.decode import ImageRef
from ape_jax.search import graph as graph_lib
from ape_jax.search import items, store
from ape_jax.search.identity import WIDTH, cut, difference

# Scores in memory at a time; queries are processed in blocks.
_SCORES = 2**26
_PROPOSED = 8  # Candidates of the graph per requested result.

# What cannot be used was said when it was indexed.
_WHATEVER_IS_THERE = Reading(on_error="skip", max_skipped=1.0)


class Index:
    """Embedded images that can be searched by embeddings.

    Attributes:
      path: directory of the index.
      record: content of `index.json`.
      entries: names, captions and sources of the images.
      vectors: embeddings of the images, unit length, f32 [n, e].
    """

    def __init__(
        self,
        path: pathlib.Path,
        record: store.Record,
        entries: Sequence[store.Entry],
        vectors: Float[np.ndarray, "n e"],
    ):
        self.path, self.record, self.entries, self.vectors = path, record, entries, vectors

    def __len__(self) -> int:
        return len(self.entries)

    def search(
        self, queries: Float[np.ndarray, "q e"], k: int, *, exact: bool = False
    ) -> list[list[tuple[int, float]]]:
        """Finds the nearest images of each query.

        The result is exact if the index has no graph, with equal cosines ordered by index. A graph
        may miss images.

        Args:
          queries: embeddings of unit length, f32 [q, e].
          k: number of images per query; fewer if the index has fewer.
          exact: compare with every image even if the index has a graph.

        Returns:
          For each query, indices in `entries` and cosines, best first.

        Raises:
          UserError: if `k` is no whole number of at least 1, or queries have another width.
        """
        k, exact = whole_number(k, "k"), arguments.truth(exact, "exact")
        queries = arguments.real_array(queries, "queries")
        if queries.ndim != 2 or queries.shape[1] != self.vectors.shape[1]:
            raise UserError(
                f"queries: expected [q, {self.vectors.shape[1]}], found {list(queries.shape)}; "
                "encode them with the model of the index"
            )
        if not np.isfinite(queries).all():
            raise UserError("queries: expected finite numbers, found NaN or infinity")
        if self._graph is not None and not exact:
            proposed = graph_lib.propose(self._graph, queries, _PROPOSED * k)
            scores = [self.vectors[rows] @ query for rows, query in zip(proposed, queries)]
            return [_best(rows, found, k) for rows, found in zip(proposed, scores)]
        every, step = np.arange(len(self)), max(1, _SCORES // len(self))
        found = []
        for start in range(0, len(queries), step):
            scores = queries[start : start + step] @ self.vectors.T
            found += [_best(every, row, k) for row in scores]
        return found

    def image(self, index: int) -> ImageRef:
        """Reference to the image of an entry; an image inside another file is found in its source.

        Args:
          index: index in `entries`.

        Raises:
          UserError: if that file can no longer be read or no longer has the image.
        """
        index = whole_number(index, "index", 0)
        if index >= len(self):
            raise UserError(f"index: expected 0 to {len(self) - 1}, found {index}")
        entry = self.entries[index]
        if not entry.name.startswith(f"{entry.source}::"):
            return ImageRef(entry.name, printable(entry.name))
        if entry.name not in (found := self._inside(entry.source)):
            raise UserError(
                f"{entry.source} no longer holds {printable(entry.name)}; index it again"
            )
        return found[entry.name]

    @functools.lru_cache(maxsize=4)  # noqa: B019 (an index lives as long as its process)
    def _inside(self, source: str) -> Mapping[str, ImageRef]:
        opened = items.open_images(source, key="index", reading=_WHATEVER_IS_THERE)
        return {item.name: item.image for item in opened.items}

    @functools.cached_property
    def _graph(self) -> graph_lib.Graph | None:
        if store.GRAPH not in self.record.sha256 or not graph_lib.is_installed():
            return None
        return graph_lib.read(self.path / self.record.folder / store.GRAPH)


def open_index(
    path: str | os.PathLike[str], identity: Mapping[str, str] | None, *, key: str = "--index"
) -> Index:
    """Opens an index, for a model.

    Args:
      path: directory of the index.
      identity: identity of the model that will search it (`search.identity`); None for no model.
      key: the flag to name in messages.

    Raises:
      UserError: if there is no index, it is damaged, or another model made it.
    """
    where = _where(path, key)
    record = store.read_record(where, key)
    what = None if identity is None else difference(record.identity, identity)
    if identity is not None and what == f"another {WIDTH}":
        gives = f"{width} numbers" if (width := cut(identity)) else "all of its numbers"
        raise UserError(
            f"{key}: {where} holds embeddings of {record.width} numbers, and the model gives "
            f"{gives}; write --dim {record.width}, or make a new index"
        )
    if what is not None:
        raise UserError(
            f"{key}: {where} was made by a run ({record.run}) with {what} than this one has now; "
            "use that run as it was, or make a new index"
        )
    return Index(where, record, *store.read_files(where, record, key))


def maker(path: str | os.PathLike[str], *, key: str = "--index") -> str:
    """Path of the run that made an index, at that time; raises as `open_index`."""
    return store.read_record(_where(path, key), key).run


def exists(path: str | os.PathLike[str], *, key: str = "--out") -> bool:
    """Whether there is an index at a path, sound or not."""
    return (_where(path, key) / store.RECORD).exists()


def made_with(path: str | os.PathLike[str], *, key: str = "--index") -> int | None:
    """The width that an index had its embeddings cut to, None for all; raises as `open_index`."""
    return cut(store.read_record(_where(path, key), key).identity)


def _where(path: str | os.PathLike[str], key: str) -> pathlib.Path:
    return pathlib.Path(path_text(path, key)).expanduser().absolute()


def _best(
    rows: Int[np.ndarray, " c"], scores: Float[np.ndarray, " c"], k: int
) -> list[tuple[int, float]]:
    """Selects the k highest scores of ascending rows; equal scores in the order of the rows."""
    if k < len(scores):
        least = -np.partition(-scores, k - 1)[k - 1]
        kept = np.flatnonzero(scores >= least)
        rows, scores = rows[kept], scores[kept]
    order = np.argsort(-scores, kind="stable")[:k]
    return [(int(rows[i]), float(scores[i])) for i in order]
