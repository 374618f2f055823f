"""The parts, by name: a module each, with `run(settings, figures)`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence

from tests.accelerator.figures import Figures
from tests.accelerator.settings import Settings

PARTS = (
    "correct/text_towers",
    "correct/image_towers",
    "correct/int8",
    "correct/losses",
    "correct/heads",
    "correct/features",
    "correct/resume",
    "correct/checkpoints",
    "correct/memory",
    "fast/card",
    "fast/vision",
    "fast/text",
    "fast/head",
    "fast/losses",
    "fast/tuned",
    "fast/epoch",
    "fast/decode",
    "plan/steps",
)

# What a part's process needs in its environment before JAX is there.
ENVIRONMENT: Mapping[str, Mapping[str, str]] = {
    # Two feeds can give the same bits only where a program itself does, run twice.
    "correct/features": {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"},
}


def load(name: str) -> Callable[[Settings, Figures], None]:
    """What runs the part of that name."""
    return importlib.import_module(f"tests.accelerator.{name.replace('/', '.')}").run


def decides(name: str) -> bool:
    """Whether a part shows what must be right, and so has to come to its end."""
    return name.split("/")[0] not in ("fast", "plan")


def named(words: Sequence[str]) -> list[str]:
    """Parts by their names or by those of their groups ('correct'); all of them if none is named.

    Raises:
      ValueError: for a word that is neither.
    """
    chosen: list[str] = []
    for word in words or ("",):
        found = [x for x in PARTS if not word or x == word or x.startswith(f"{word}/")]
        if not found:
            raise ValueError(f"there is no part {word!r}; there are {', '.join(PARTS)}")
        chosen += [x for x in found if x not in chosen]
    return chosen
