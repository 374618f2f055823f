"""The config of a study: that of an experiment, and a section `study` beside it.

Config files set `config.study.methods` and the like on `config_lib.default()`, whose section
`study` is open: only `ape_jax.study` reads it, and every other command leaves it out.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from ape_jax.config import Config
from ape_jax.config.fields import Field, integer, is_number
from ape_jax.config.section import Section, key, section
from ape_jax.studies.methods import METHODS

_NAME = re.compile(r"[\w.+@-]{1,80}")  # It becomes a folder's.


def is_methods(value: Any) -> bool:
    """Whether it lists methods that a study knows."""
    return isinstance(value, tuple) and all(isinstance(v, str) and v in METHODS for v in value)


def is_rates(value: Any) -> bool:
    """Whether it lists (method, learning rate)."""
    ok = isinstance(value, tuple) and all(isinstance(v, tuple) and len(v) == 2 for v in value)
    return ok and all(is_methods((m,)) and is_number(lr) and 0 < lr <= 10 for m, lr in value)


def is_sizes(value: Any) -> bool:
    """Whether it lists different numbers of pairs, 0 for all."""
    ok = isinstance(value, tuple) and all(type(v) is int and v >= 0 for v in value)
    return ok and len(set(value)) == len(value)


def is_steps(value: Any) -> bool:
    """Whether it lists (pairs, steps)."""
    ok = isinstance(value, tuple) and all(isinstance(v, tuple) and len(v) == 2 for v in value)
    return ok and all(type(x) is int and x >= 0 for v in value for x in v)


def is_domains(value: Any) -> bool:
    """Whether it lists (name, training pairs, ((set, pairs), ...)), each name once."""
    ok = isinstance(value, tuple) and all(isinstance(v, tuple) and len(v) == 3 for v in value)
    if not (ok and all(_is_domain(*v) for v in value)):
        return False
    return len({name for name, _, _ in value}) == len(value)


def _is_domain(name: Any, pairs: Any, sets: Any) -> bool:
    named = isinstance(name, str) and _NAME.fullmatch(name) is not None
    if not (named and isinstance(pairs, str) and pairs and isinstance(sets, tuple) and sets):
        return False
    each = all(isinstance(s, tuple) and len(s) == 2 for s in sets)
    return each and all(isinstance(x, str) and x for s in sets for x in s)


def is_settings(value: Any) -> bool:
    """Whether it lists (method, config key, value)."""
    ok = isinstance(value, tuple) and all(isinstance(v, tuple) and len(v) == 3 for v in value)
    return ok and all(is_methods(v[:1]) and isinstance(v[1], str) for v in value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudySection(Section):
    """What `ape_jax.study` compares, and over how many seeds from `seed` on."""

    methods: tuple[str, ...] = key(
        Field((), f"names out of {', '.join(map(repr, METHODS))}", is_methods), "What is compared."
    )
    seeds: int = key(integer(3, 1, 1000), "Runs of each method and size, from seed on.")
    sizes: tuple[int, ...] = key(
        Field((), "different numbers of pairs, 0 for all", is_sizes),
        "Numbers of training pairs, samples as of data.sample; () and 0 are all pairs.",
    )
    steps: tuple[tuple[int, int], ...] = key(
        Field((), "pairs (number of pairs, steps)", is_steps),
        "Steps of sizes that want others than train.steps; the warm-up keeps its share.",
    )
    set: tuple[tuple[str, str, Any], ...] = key(
        Field((), "triples (method, config key, value)", is_settings),
        "Whatever else a method wants.",
    )
    domains: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = key(
        Field((), "triples (name, training pairs, ((set, pairs), ...)), names once", is_domains),
        "Further pairs and sets that the grid is run on; the first are data.pairs and data.eval.",
    )
    reference: str = key(
        Field("", "'' or one of study.methods", lambda v: v == "" or is_methods((v,))),
        "The method whose difference from each other one is tabled, with intervals; '' for none.",
    )
    lrs: tuple[tuple[str, float], ...] = key(
        Field((), "pairs (method, learning rate)", is_rates),
        "Learning rates of methods that want another than optim.lr.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyConfig(Config):
    """The experiment that every cell of a study varies, and what it varies."""

    study: StudySection = section(StudySection)
