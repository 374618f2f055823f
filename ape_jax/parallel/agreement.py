"""What the processes of a run must have in common, compared before it can do harm."""

from __future__ import annotations

from collections.abc import Mapping

from ape_jax.parallel.peers import Peers

_joined: list[Peers] = []


def join(others: Peers) -> None:
    """Makes these the processes that `agree` asks."""
    _joined[:] = [others]


def leave() -> None:
    """Leaves them: this process is alone again."""
    _joined.clear()


def peers() -> Peers | None:
    """The other processes of the run, None for a process that is alone."""
    return _joined[0] if _joined else None


def agree(point: str, facts: Mapping[str, str], remedy: str) -> None:
    """Compares facts over the processes of the run; a process that is alone agrees with itself.

    Every process must call it at the same point, before anything in which the others would wait for
    it in vain.

    Example:
      agree("opening pairs", {"data.pairs": pairs.digest}, "give all processes the same files")

    Args:
      point: what the processes are about to do, for the case that they are not.
      facts: values by name, short texts.
      remedy: what to do where they differ.

    Raises:
      UserError: the same on every process, naming what differs and which has which value.
    """
    if (others := peers()) is not None:
        others.agree(point, facts, remedy)
