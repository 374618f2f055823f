"""A part that does not end."""

from __future__ import annotations

import time

from tests.accelerator.figures import Figures
from tests.accelerator.settings import Settings


def run(settings: Settings, figures: Figures) -> None:
    """Waits for longer than anyone waits for it."""
    time.sleep(3600)
