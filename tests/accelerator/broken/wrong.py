"""A part whose second figure is not right."""

from __future__ import annotations

from tests.accelerator.figures import Figures
from tests.accelerator.settings import Settings


def run(settings: Settings, figures: Figures) -> None:
    """Prints one of each."""
    figures.checked("a small difference", 1e-7, bound=1e-6)
    figures.checked("a large difference", 1e-5, bound=1e-6)
