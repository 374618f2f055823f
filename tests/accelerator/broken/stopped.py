"""A part that an error stops."""

from __future__ import annotations

from tests.accelerator.figures import Figures
from tests.accelerator.settings import Settings


def run(settings: Settings, figures: Figures) -> None:
    """Prints words that are no figure, and ends."""
    print('{"not": "a figure"}')
    raise RuntimeError("there is no such kernel")
