"""Native image towers of every family beside torch's, on small random weights."""

from __future__ import annotations

from tests.accelerator.correct import towers
from tests.accelerator.figures import Figures
from tests.accelerator.settings import Settings


def run(settings: Settings, figures: Figures) -> None:
    """Prints their differences."""
    towers.compare("image", settings, figures)
