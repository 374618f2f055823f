"""What the processes of a run must have in common, compared before it can do harm."""

from __future__ import annotations

from collections.abc import Mapping

from ape_jax.parallel.peers import Peers

_joined: list[Peers] = []


def join(peers: Peers) -> None:
    """Makes these the processes that `agree` asks."""
    _joined[:] = [peers]


def leave() -> None:
    """Leaves them: this process is alone again."""
    _joined.clear()


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
    for peers in _joined:
        peers.agree(point, facts, remedy)
