"""Looks at what a run learns from before the first step: features that cannot teach anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float

from ape_jax.data.pairs import Pairs
from ape_jax.data.precomputed.verified import is_finite
from ape_jax.features.cut import Cut, cut_of
from ape_jax.features.dataset import Dataset
from ape_jax.storage.row_array import blocks
from ape_jax.storage.rows.access import Rows
from ape_jax.towers.text.tokens import TextPrepare
from ape_jax.towers.tower import Tower
from ape_jax.training.notices.record import Notice
from ape_jax.training.run import Run

_SAMPLE = 512  # Images or captions that are looked at, evenly spaced.
_SAME = 1e-9  # Variance of features, relative to their mean square.
# Squares of f32 overflow beyond, and below, towers' and heads' norms take them for zero.
_LARGE, _SMALL = 1e17, 1e-12
_BLOCK = 4096


def cuts(run: Run) -> dict[str, Cut]:
    """The captions of each data set that the text tower cuts, by the set's name in the digests."""
    tower, found = run.aligned.model.text.tower, {}
    datasets = {"train": run.dataset} | {f"eval/{task.name}": task.dataset for task in run.tasks}
    for name, dataset in datasets.items():
        if isinstance(tower.prepare, TextPrepare) or tower.outside is not None:
            cut = _cut(tower, dataset, f"{name} captions")
            found |= {} if cut is None else {name: cut}
    return found


def _cut(tower: Tower, dataset: Dataset, what: str) -> Cut | None:
    # A library that pools by itself gives one encoding a caption.
    tokens = dataset.tokens if tower.outside is None else None
    lengths = None if tokens is None else tokens.lengths
    return cut_of(tower, dataset.captions.texts, what, lengths)


def look(run: Run, found: Mapping[str, Cut]) -> Iterator[Notice]:
    """What is odd about the pairs of a run and their features.

    Args:
      run: the run.
      found: the captions that are cut.
    """
    for name, cut in found.items():
        said = "training" if name == "train" else name
        yield Notice(
            step=0,
            kind=f"captions cut, {name}",
            message=f"{said}: {cut}; set text.max_length, if the tower takes more, or shorten them",
        )
    yield from _repeats(run)
    yield from _tokenizer(run)
    for side, words in _features(run.dataset, run.aligned.model.standardize):
        yield Notice(step=0, kind=f"{side} features", message=words)


def _repeats(run: Run) -> Iterator[Notice]:
    """Few different captions, each of which counts as wrong for all images but one."""
    captions, same = run.dataset.captions, run.aligned.config.loss.same
    texts, images = len(captions.texts), len(captions.counts)
    if captions.negatives is not None:  # Whose texts are among these, too.
        texts = len(np.unique(captions.text_index))
    if not run.aligned.config.trains or same == "image+caption" or 4 * texts > images:
        return
    yield Notice(
        step=0,
        kind="captions repeat",
        message=f"the {images} images have {texts} different caption{'s' * (texts > 1)}, and an "
        "image's own caption counts as wrong where it belongs to another image; write "
        "loss.same='image+caption'",
    )


def _tokenizer(run: Run) -> Iterator[Notice]:
    """A tokenizer that does not know the captions' words: what it makes of them is the same."""
    prepare, texts = run.aligned.model.text.tower.prepare, run.dataset.captions.texts
    if not isinstance(prepare, TextPrepare) or len(texts) < 8:
        return
    some = [texts[int(i)] for i in _spaced(len(texts))]
    room = prepare.max_length - prepare.special
    different = len({tuple(prepare.cut(body, room)) for body in prepare.bodies(some)})
    if 2 * different < len(some):
        yield Notice(
            step=0,
            kind="captions look the same",
            message=f"the text tower's tokenizer makes {different} different inputs of "
            f"{len(some)} different captions: it does not know their words, or cuts what differs; "
            "take a text tower of their language, or a longer text.max_length",
        )


def _features(dataset: Dataset, standardize: bool) -> Iterator[tuple[str, str]]:
    """What is odd about the features, in a sentence, by side."""
    count = len(dataset.pairs)
    if dataset.pooled is not None:
        rows = dataset.pooled[_spaced(len(dataset.pooled))].astype(np.float64)
        if words := _odd(rows.reshape(len(rows), -1), any_size=standardize):
            yield "image", f"the image features of the {count} training pairs are {words}"
    if dataset.tokens is not None and len(dataset.tokens) > 0:
        tokens = dataset.tokens.rows(_spaced(len(dataset.tokens)))
        flat = np.asarray(tokens.flat[:]).astype(np.float64)
        means = np.add.reduceat(flat, tokens.offsets[:-1], axis=0) / tokens.lengths[:, None]
        words = _odd(means)
        if not words and len(means) == 1:
            words = "all the same: there is one caption; give images captions of their own"
        if words:
            yield "text", f"the caption features of the {count} training pairs are {words}"


def _odd(rows: Float[np.ndarray, "n d"], *, any_size: bool = False) -> str:
    """What is odd about features; "" for nothing. Those that are standardised are of any size."""
    largest = float(np.abs(rows).max())
    if not np.isfinite(largest):
        return ""  # The first step says so.
    if largest == 0:
        return "all zero: nothing can be told apart; encode them again"
    if largest > _LARGE and not any_size:
        return f"as large as {largest:.1e}, whose squares are no longer finite; scale them down"
    if largest < _SMALL and not any_size:
        return f"at most {largest:.1e} in size, which a norm takes for zero; scale them up"
    varies = ((rows - rows.mean(axis=0)) ** 2).mean()
    if len(rows) > 1 and varies <= _SAME * (rows**2).mean():
        return "all the same: nothing can be told apart; look whether their sources differ"
    return ""


def _spaced(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, _SAMPLE)).astype(np.int64))


def not_finite(run: Run) -> str:
    """Where features of a run are not finite, or too large, in a clause; "" where they are sound.

    Reads all of them: it is called once a loss is no longer finite.
    """
    dataset = run.dataset
    flat = None if dataset.tokens is None else dataset.tokens.flat
    for what, rows in (("images", dataset.pooled), ("captions", flat)):
        row = None if rows is None else _first_bad(rows)
        if row is None:
            continue
        if what == "images":
            where = _name(dataset, row)
        else:
            offsets = dataset.tokens.offsets if dataset.tokens is not None else np.zeros(1)
            at = int(np.searchsorted(offsets, row, side="right")) - 1
            where = repr(dataset.captions.texts[at][:80])
        return (
            f"the features of {what} are not finite, first those of {where}: the tower cannot be "
            "used on it in this precision; write dtype=float32, or leave it out"
        )
    standardize = run.aligned.model.standardize
    return "; ".join(words for _, words in _features(dataset, standardize))


def _first_bad(rows: Rows) -> int | None:
    for block in blocks(len(rows), _BLOCK):
        finite = is_finite(np.ascontiguousarray(rows[block]))
        if not finite.all():
            return block.start + int(np.argmin(finite.reshape(len(finite), -1).all(axis=1)))
    return None


def _name(dataset: Dataset, row: int) -> str:
    pairs = dataset.pairs
    return pairs.image_ref(row).name if isinstance(pairs, Pairs) else f"record {row}"
