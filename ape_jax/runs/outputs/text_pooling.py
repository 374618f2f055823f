"""How captions become vectors: `text.pooling` on a tower, a layer and heads.

"own" is what the tower's files say. Where these put modules behind the pooling (Dense, LayerNorm),
or another library pools, the tower gives one vector a caption, which heads on vectors take. Heads
that read tokens, and inner layers, have no part in such a vector; they have the pooling before it.
"""

from __future__ import annotations

from ape_jax.config import Config
from ape_jax.config.components import text_parts
from ape_jax.config.poolings import OWN, parts
from ape_jax.towers.files.reading import say_once
from ape_jax.towers.pooling import OWN as TRAINED
from ape_jax.towers.tower import Tower

_MEAN = "mean"


def pooling(config: Config, tower: Tower) -> str:
    """How heads pool a caption's tokens: the config's way, or the tower's own.

    One vector that the tower has pooled itself stands for all tokens and is its own mean. Where no
    file says how a tower pools, the mean is taken.

    Args:
      config: the resolved config.
      tower: the text tower.
    """
    own = tower.config.pooling
    if config.text.pooling != OWN:
        return config.text.pooling
    if tower.outside is not None or output(config, tower) in TRAINED:
        return _MEAN
    if own in TRAINED:
        return _before_the_modules(tower)
    return own if getattr(tower.config, "pooling_known", True) else _MEAN


def output(config: Config, tower: Tower) -> str:
    """What a text tower gives: one vector that it has pooled itself, or "none" for its tokens.

    Args:
      config: the resolved config.
      tower: the text tower.
    """
    own = tower.config.pooling
    if tower.outside is not None:
        return OWN if own == OWN else "none"
    whole = config.text.pooling == OWN and own in TRAINED
    return own if whole and _takes_a_vector(config) else "none"


def outside(config: Config, tower: Tower) -> str:
    """How another library pools captions: itself, or not at all.

    Args:
      config: the resolved config.
      tower: the text tower, as it is read.
    """
    whole = config.text.pooling == OWN and tower.config.pooling == OWN
    return OWN if whole and _takes_a_vector(config) else "none"


def say(config: Config, tower: Tower) -> None:
    """Says once where "own" is not what the tower's files say, and what is taken for it.

    Args:
      config: the resolved config.
      tower: the text tower, as it is read.
    """
    own, spec, head = tower.config.pooling, config.text.tower, config.text.head.name
    if config.text.pooling != OWN:
        return
    if not getattr(tower.config, "pooling_known", True):
        say_once(
            f"{spec}: no file says how this tower pools, so text.pooling is 'mean'; its family is "
            f"often read by {own!r}"
        )
    elif own in (*TRAINED, OWN) and not _takes_a_vector(config):
        why = f"text.head.name={head!r} reads tokens"
        why = why if config.text.layer == -1 else f"text.layer is {config.text.layer}"
        taken = pooling(config, tower) if tower.outside is None else _MEAN
        say_once(
            f"{spec}: {why}, so what this tower puts behind its pooling is left out; heads on one "
            f"vector take {taken!r}"
        )
    elif config.trains and not any(_pooled(config)) and parts(own) and own != _MEAN:
        say_once(
            f"{spec}: text.head.name={head!r} pools tokens itself; the tower's pooling, {own!r}, "
            "has no part in it"
        )


def _takes_a_vector(config: Config) -> bool:
    """Whether heads take one vector a caption, of the output, and nothing else."""
    return config.text.layer == -1 and (not config.trains or all(_pooled(config)))


def _pooled(config: Config) -> list[bool]:
    return [part.pooled is not None for part in text_parts(config.text.head.name).values()]


def _before_the_modules(tower: Tower) -> str:
    """The modes that the modules behind a tower's pooling begin with."""
    head = getattr(tower.config, "head", None)
    found = getattr(head, "pooling", _MEAN)
    return found if parts(found) else _MEAN
