"""Few, carefully chosen pairs against random ones: `ape-jax curate` on the icons and the emoji.

    python tests/benchmarks/curation.py icons [--pool demo:icons:train] [--sets 20] [--names 100]
        [--count 2000] [--diversity 0,0.5,2] [--validation] [--config.KEY=VALUE ...]
    python tests/benchmarks/curation.py emoji --count 150

A set of names is drawn at random, none of which is in the pool; pairs are chosen for these names,
a closed form (CCA, as `few_pairs` starts) is fitted on the chosen pairs alone, and finds the names'
drawings: R@10 among them, mean of both directions. Against it stand 1/4, 1/2, 1, 2, 3 and 6 times
as many random pairs. The same sets of names serve all methods, so that differences are paired; the
intervals are bootstrap intervals over sets of names, of 95 %.

Icons: names of `demo:icons:test` (or validation, on which everything was chosen), 100 at a time.
Emoji: food, animals, travel; half of a group's concepts, in both styles, are held out of the pool
in each set.

Image features are reduced to 256 principal components of the pool and texts to 192, so that the
hundreds of fits take minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from ape_jax import config as config_lib
from ape_jax.align.closed_form import cca, from_rows
from ape_jax.config import recipes
from ape_jax.curation import agreement, choice, curated, repeated, towers
from ape_jax.curation.target import Queries
from ape_jax.curation.vectors import Vectors, unit
from ape_jax.data.options import Reading
from ape_jax.data.specs import open_pairs
from ape_jax.terminal import tables

_DIMS = {"image": 256, "text": 192}
_LOOKED_AT: dict[bytes, tuple] = {}
_TIMES = (0.25, 0.5, 1, 2, 3, 6)
# Code points, roughly the Unicode groups.
_GROUPS = {
    "food": ((0x1F32D, 0x1F330), (0x1F345, 0x1F37F), (0x1F950, 0x1F96F), (0x1F9C0, 0x1F9CB)),
    "animals": ((0x1F400, 0x1F43F), (0x1F980, 0x1F9AE), (0x1FAB0, 0x1FABF)),
    "travel": ((0x1F680, 0x1F6FF), (0x1F3D4, 0x1F3F0)),
}


@dataclasses.dataclass(frozen=True)
class Rows:
    """Vectors of pairs, raw, with ids and captions."""

    image: np.ndarray
    text: np.ndarray
    ids: tuple[str, ...]
    captions: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Trial:
    """A set of names: the rows of the pool that may be chosen from, and the test's drawings."""

    name: str
    pool: np.ndarray
    tests: tuple[np.ndarray, ...]


def main() -> None:
    """Prints a table for each group of names, and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bench", choices=["icons", "emoji"])
    parser.add_argument("--pool", default="demo:icons:train")
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--names", type=int, default=100)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--diversity", default="0", help="weights, by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--validation", action="store_true")
    flags, overrides = parser.parse_known_args()
    weights = [float(weight) for weight in flags.diversity.split(",")]
    pool, tests, trials = _world(flags, overrides)
    found: dict[str, dict[str, list[float]]] = {}
    for trial in trials:
        figures = found.setdefault(trial.name, {})
        values = measure(pool, tests, trial, flags.count, weights, flags.seed)
        for method, value in values.items():
            figures.setdefault(method, []).append(value)
        print(trial.name, {k: round(v[-1], 1) for k, v in figures.items()}, flush=True)
    for name, figures in found.items():
        print(table(name, figures, flags.count), flush=True)
    print(json.dumps({"benchmark": "curation", **vars(flags), "figures": found}))


def measure(
    pool: Rows, tests: Rows, trial: Trial, count: int, weights: list[float], seed: int
) -> Mapping[str, float]:
    """R@10 of each method on one set of names."""
    image, text = pool.image[trial.pool], pool.text[trial.pool]
    vectors = Vectors.of(from_rows(text, image))
    clean, reduce = _looked_at(trial.pool.tobytes(), vectors, seed)
    names = tests.text[trial.tests[0]]
    queries = Queries(image=None, text=unit(names - vectors.text_mean))
    everything = np.ones_like(clean)

    def r10(rows: np.ndarray) -> float:
        fit = cca(from_rows(reduce[1](text[rows]), reduce[0](image[rows])), 1.0, power=1.0)
        some = [
            _recall(fit.image(reduce[0](tests.image[test])), fit.text(reduce[1](tests.text[test])))
            for test in trial.tests
        ]
        return float(np.mean(some))

    rng = np.random.default_rng([seed, *trial.tests[0][:3]])
    order, orderly = rng.permutation(len(clean)), rng.permutation(np.flatnonzero(clean))
    found = {f"random {int(k * count)}": r10(order[: int(k * count)]) for k in _TIMES}
    found[f"all {len(clean)}"] = r10(order)
    found[f"random {count} without duplicates and mismatched"] = r10(orderly[:count])
    cosines = queries.text @ vectors.texts(slice(0, len(clean))).T
    found["nearest to any name"] = r10(np.argsort(-cosines.max(axis=0), kind="stable")[:count])
    for weight, title, allowed in (
        (0.0, "of all", everything),
        *((weight, "of clean", clean) for weight in weights),
    ):
        rows = choice.choose(vectors, allowed, queries, count, diversity=weight).rows
        found[f"chosen {title}, diversity {weight:g}"] = r10(rows)
    return found


def _looked_at(pool: bytes, vectors: Vectors, seed: int) -> tuple[np.ndarray, list]:
    """Mask of what is neither repeated nor mismatched, and the components of both sides."""
    if pool not in _LOOKED_AT:
        shares = agreement.agreement(vectors.paired, seed=seed)
        rank = np.argsort(np.argsort(shares, kind="stable"), kind="stable")
        once = repeated.repeated(vectors, rank, seed=seed) == np.arange(len(rank))
        wrong = shares > curated.MISMATCHED
        print(
            f"pool of {len(rank)}: {(~once).sum()} near-duplicates, {wrong.sum()} mismatched; "
            f"captions that are not about their image: at most "
            f"{100 * agreement.unrelated(shares):.0f} %",
            flush=True,
        )
        paired = vectors.paired
        sides = [_components(paired.image[:, 0], "image"), _components(paired.text, "text")]
        _LOOKED_AT.clear()
        _LOOKED_AT[pool] = once & ~wrong, sides
    return _LOOKED_AT[pool]


def table(name: str, figures: Mapping[str, list[float]], count: int) -> str:
    """Means with intervals, and the paired difference to as many random pairs."""
    base = np.array(figures[f"random {count}"])
    rows = []
    for method, values in figures.items():
        mean, low, high = _interval(np.array(values))
        more, least, most = _interval(np.array(values) - base)
        rows.append(
            [
                method,
                f"{mean:.1f} ({low:.1f} to {high:.1f})",
                f"{more:+.1f} ({least:+.1f} to {most:+.1f})",
            ]
        )
    head = [f"{name}, {len(base)} sets", "R@10", f"against {count} random ones"]
    return tables.markdown(head, rows)


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    drawn = np.random.default_rng(0).integers(0, len(values), (2000, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


def _recall(zimg: np.ndarray, ztxt: np.ndarray) -> float:
    """R@10 in per cent, mean of both directions; row i of one belongs to row i of the other."""
    cosines = unit(zimg) @ unit(ztxt).T
    own = np.diag(cosines)
    ranks = (cosines > own[:, None]).sum(1), (cosines > own[None]).sum(0)
    return float(100 * np.mean([(rank < 10).mean() for rank in ranks]))


def _components(x: np.ndarray, side: str) -> Callable[[np.ndarray], np.ndarray]:
    mean = x.mean(axis=0)
    some = x[:: max(1, len(x) // 10_000)] - mean
    _, directions = np.linalg.eigh((some.T @ some).astype(np.float64))
    kept = directions[:, ::-1][:, : _DIMS[side]].astype(np.float32)
    return lambda rows: (rows - mean) @ kept


def _world(flags: argparse.Namespace, overrides: list[str]) -> tuple[Rows, Rows, Iterator[Trial]]:
    config = config_lib.default()
    if flags.bench == "icons":
        recipes.icons(config, validation=flags.validation)
        pools, held_out = [flags.pool], [next(iter(config.data.eval.values()))]
    else:
        recipes.emoji(config, validation=flags.validation, views=1)
        config.augment.crop, config.augment.flip, config.augment.randaugment = (), False, ()
        styles = ("twemoji", "openmoji")
        pools = [f"demo:{s}:{split}" for s in styles for split in ("train", "validation", "test")]
        held_out = []
    keys = dict(word.removeprefix("--config.").split("=", 1) for word in overrides)
    config_lib.override(config, keys)
    config.data.on_error = "skip"  # An icon is called "null".
    read = towers.reading_config(config_lib.resolve(config), pools[0])
    read, _ = towers.open_pool(read)
    loaded = towers.load(read)
    pool = _joined([_rows(loaded, spec) for spec in pools])
    if flags.bench == "emoji":
        return pool, pool, _emoji_trials(pool, flags.sets)
    tests = _joined([_rows(loaded, spec) for spec in held_out])
    return pool, tests, _icon_trials(len(pool.ids), tests, flags)


def _icon_trials(count: int, tests: Rows, flags: argparse.Namespace) -> Iterator[Trial]:
    _, first = np.unique(tests.captions, return_index=True)
    for number in range(flags.sets):
        rng = np.random.default_rng([flags.seed, number])
        chosen = rng.choice(first, flags.names, replace=False)
        yield Trial("icons", np.arange(count), (chosen,))


def _emoji_trials(pool: Rows, sets: int) -> Iterator[Trial]:
    points = np.array([int(name.rpartition("/")[2].split("-")[0], 16) for name in pool.ids])
    half = len(points) // 2  # Two styles with the same emoji, one after the other.
    for name, ranges in _GROUPS.items():
        inside = np.any([(points >= low) & (points <= high) for low, high in ranges], axis=0)
        names = np.unique(np.array(pool.captions)[inside])
        for number in range(sets):
            drawn = np.random.default_rng([number]).permutation(names)[: len(names) // 2]
            held = np.isin(pool.captions, drawn)
            tests = (np.flatnonzero(held & (np.arange(len(held)) < half)),)
            tests += (np.flatnonzero(held & (np.arange(len(held)) >= half)),)
            yield Trial(name, np.flatnonzero(~held), tests)


def _rows(loaded: towers.Towers, spec: str) -> Rows:
    pairs = open_pairs(spec, reading=Reading.of(loaded.config.data))
    vectors = loaded.vectors(loaded.encode(pairs, spec))
    paired, first = (
        vectors.paired,
        np.searchsorted(vectors.paired.image_index, np.arange(len(vectors))),
    )
    return Rows(
        image=paired.image[:].astype(np.float32)[:, 0],
        text=paired.text[paired.text_index[first]].astype(np.float32),
        ids=tuple(pairs.ids()),
        captions=tuple(pair.captions[0] for pair in pairs),
    )


def _joined(parts: list[Rows]) -> Rows:
    return Rows(
        image=np.concatenate([part.image for part in parts]),
        text=np.concatenate([part.text for part in parts]),
        ids=sum((part.ids for part in parts), ()),
        captions=sum((part.captions for part in parts), ()),
    )


if __name__ == "__main__":
    main()
