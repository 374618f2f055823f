"""Widths of embeddings: prefixes that are trained (`loss.dims`), and the one that is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ape_jax.config import Config
from ape_jax.errors import UserError, whole_number
from ape_jax.towers.files.reading import say_once


def settings(dim: Any, key: str) -> dict[str, Any]:
    """The config key that has a model give the first `dim` numbers of its embeddings.

    Example:
      >>> settings(64, "dim"), settings(None, "dim")
      ({'eval.dim': 64}, {})

    Args:
      dim: a whole number of at least 1; None for what the model's own config says.
      key: what to call it in messages.

    Raises:
      UserError: for another `dim`.
    """
    return {} if dim is None else {"eval.dim": whole_number(dim, key)}


def chosen(config: Config, width: int, solved: Mapping[str, Any] | None) -> int:
    """Checks `loss.dims` and `eval.dim` against the joint width.

    A dim that nothing has trained is said once.

    Args:
      config: the resolved config.
      width: the joint width E; of heads that await a closed form, the largest that there is.
      solved: the record of that closed form, None before it is solved.

    Returns:
      How many numbers of an embedding are used, 0 for all.

    Raises:
      UserError: for a prefix that is no prefix, or a dim above the joint width.
    """
    form, dim = config.closed_form, config.eval.dim
    awaited = form if solved is None else None
    if awaited is not None and not awaited.takes_width:
        return dim  # The solution says how wide it is.
    if config.loss.dims and config.loss.dims[-1] >= width:
        raise UserError(
            f"config.loss.dims: all {width} numbers of an embedding are trained in any case, and a "
            f"prefix has fewer; leave out {config.loss.dims[-1]}"
        )
    if dim > width:
        raise UserError(
            f"config.eval.dim: embeddings have {width} numbers; write at most that (as dim= or "
            f"--dim, too), found {dim}"
        )
    if awaited is not None or dim in (0, width):
        return 0 if dim == width else dim
    if dim not in config.loss.dims and (config.trains or form is None or not form.sorted):
        say_once(_untrained(config, dim, width))
    return dim


def _untrained(config: Config, dim: int, width: int) -> str:
    """What to say of a prefix that is not among those that were trained."""
    cut = f"embeddings are cut to their first {dim} of {width} numbers"
    if not config.data.pairs:
        return f"{cut}; nothing in the model's files says whether it was trained for that"
    why = f"loss.dims={config.loss.dims!r}" if config.trains else f"method={config.method!r}"
    return f"{cut}, which were not trained to be used alone ({why})"
