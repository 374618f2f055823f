"""Means of languages: what is taken off captions so that those of all languages lie together.

They are those of the training captions below the heads, fixed before the first step. Each is the
mean of one vector a caption, pooled as the heads pool; taken off every token, it is taken off what
is pooled. Captions count as training meets them: an image draws a language, then a caption of it.
"""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
from jaxtyping import Float

from ape_jax.align.languages import Languages
from ape_jax.config import Config, poolings
from ape_jax.data.languages import spoken
from ape_jax.data.options import BY_SCRIPT
from ape_jax.data.pairs import Pairs
from ape_jax.data.table.texts import Captions
from ape_jax.errors import UserError
from ape_jax.features.dataset import Dataset, captions_of
from ape_jax.features.ragged import RaggedTokens
from ape_jax.parallel import hosts
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.runs import build
from ape_jax.runs.aligned import LANGUAGES, STATISTICS, AlignedModel
from ape_jax.runs.outputs import text_pooling
from ape_jax.storage.row_array import blocks
from ape_jax.training.captions.pooled import PooledRows, shifts

FEWEST = 16
"""Captions of a language whose mean says something about it."""
_BLOCK = 4096


def check(config: Config, pairs: Pairs) -> None:
    """Raises UserError for training pairs whose captions are not in several languages."""
    if not config.data.language:
        return
    found = captions_of(pairs, language=config.data.language).spoken
    assert found is not None
    counts = dict(zip(found.names, np.bincount(found.index, minlength=len(found.names)).tolist()))
    enough = [name for name, count in counts.items() if count >= FEWEST]
    if len(enough) > 1:
        return
    listed = ", ".join(f"{count:,} in {name!r}" for name, count in counts.items())
    told = "by script" if config.data.language == BY_SCRIPT else f"by {config.data.language!r}"
    raise UserError(
        f"config.data.language: the captions of {config.data.pairs} are, {told}, {listed}; means "
        f"need two languages of {FEWEST} captions or more: write '' for none, or name a column"
    )


def settled(
    aligned: AlignedModel, towers: build.Towers, dataset: Dataset
) -> tuple[AlignedModel, Dataset]:
    """Computes the means of languages and puts them into the model.

    Args:
      aligned: the model.
      towers: its towers.
      dataset: the training pairs, whose captions are encoded.

    Returns:
      The model, and the pairs with the row of each caption in its table of means.
    """
    captions, tokens = dataset.captions, dataset.tokens
    if captions.spoken is None or tokens is None:
        raise ValueError("means of languages are those of encoded captions with their languages")
    pooling = poolings.parts(text_pooling.pooling(aligned.config, towers.text))[0]
    names, means = _of_names(captions, tokens, pooling)
    languages, table = _with_scripts(captions, names, means)
    statistics = {
        **aligned.frozen.get(STATISTICS, {}),
        **mesh_lib.place_replicated({"languages": table.astype(np.float32)}, aligned.mesh),
    }
    aligned = dataclasses.replace(
        aligned,
        model=dataclasses.replace(aligned.model, languages=languages),
        frozen={**aligned.frozen, STATISTICS: statistics},
        meta={**aligned.meta, LANGUAGES: languages.record},
    )
    rows = languages.named(captions.spoken.names)[captions.spoken.index]
    return aligned, dataclasses.replace(dataset, language_rows=rows)


def _of_names(
    captions: Captions, tokens: RaggedTokens, pooling: str
) -> tuple[list[str], Float[np.ndarray, "l d"]]:
    """The languages of enough captions, and their means."""
    assert captions.spoken is not None
    count, index = len(captions.spoken.names), captions.spoken.index
    weights, pooled = spoken.balanced(captions), PooledRows(tokens, pooling)
    sums, total = np.zeros((count, pooled.shape[1])), np.zeros(count)
    order = np.argsort(captions.text_index, kind="stable")
    sorted_text = captions.text_index[order]
    for block in blocks(len(pooled), _BLOCK):
        first, last = np.searchsorted(sorted_text, [block.start, block.stop])
        uses = order[first:last]
        share = np.zeros((count, block.stop - block.start))
        np.add.at(share, (index[uses], captions.text_index[uses] - block.start), weights[uses])
        sums += share @ pooled[block].astype(np.float64)
        total += share @ shifts(tokens, np.arange(block.start, block.stop), pooling)
    numbers = np.bincount(index, minlength=count)
    few = [name for name, n in zip(captions.spoken.names, numbers) if n < FEWEST]
    if few:
        hosts.say(
            f"data.language: fewer than {FEWEST} captions are in {', '.join(map(repr, few))}; the "
            "mean over the other languages is taken off them"
        )
    enough = np.flatnonzero(numbers >= FEWEST)
    if len(enough) < 2:
        raise UserError(
            f"config.data.language: {len(enough)} language is left with {FEWEST} captions or more, "
            "once pairs that cannot be used are left out; give more pairs, or write ''"
        )
    return [captions.spoken.names[i] for i in enough], sums[enough] / total[enough, None]


def _with_scripts(
    captions: Captions, names: list[str], means: Float[np.ndarray, "l d"]
) -> tuple[Languages, Float[np.ndarray, "r d"]]:
    """The table of means: over all languages, of each, and of scripts that several are in."""
    assert captions.spoken is not None
    scripts = spoken.scripts_of(captions.texts)
    found: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    of = [captions.spoken.names[i] for i in captions.spoken.index]
    for name, text in zip(of, captions.text_index.tolist(), strict=True):
        found[name][scripts[text]] += 1
    written: dict[str, list[int]] = {}
    for row, name in enumerate(names):  # Each language in the script of most of its captions.
        written.setdefault(found[name].most_common(1)[0][0], []).append(row)
    rows, of_script = [means.mean(axis=0), *means], {}
    for script, some in written.items():
        of_script[script] = some[0] + 1 if len(some) == 1 else len(rows)
        if len(some) > 1:
            rows.append(means[some].mean(axis=0))
    languages = Languages(
        names=tuple((name, row + 1) for row, name in enumerate(names)),
        scripts=tuple(of_script.items()),
        count=len(rows),
    )
    return languages, np.stack(rows)
