"""The libraries that run towers in torch: imported when such a tower is read, and not before."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import logging
import warnings
from collections.abc import Iterator
from typing import Any

from ape_jax.errors import UserError, install

LIBRARIES = {
    "hf": ("transformers", install("torch")),
    "timm": ("timm", install("timm")),
    "st": ("sentence_transformers", install("sentence-transformers")),
}
"""By their names in specs: the module, and what installs it."""

_LONGEST = 300  # Letters of another library's message that are passed on.


def module(library: str, spec: str) -> Any:
    """Imports a library and torch.

    Args:
      library: a name of `LIBRARIES`.
      spec: of the tower, for messages.

    Raises:
      UserError: with the command that installs it, where one of them cannot be imported.
    """
    name, remedy = LIBRARIES[library]
    for needed in ("torch", name):
        try:
            imported = importlib.import_module(needed)
        except ImportError as error:
            lacks = error.name == needed
            why = "is not installed" if lacks else f"cannot be imported ({reason(error)})"
            raise UserError(f"tower {spec!r}: {needed} {why}; run {remedy}") from error
    return imported


def versions(library: str) -> dict[str, str]:
    """Versions of a library and of those under it that change features."""
    names = {"torch", LIBRARIES[library][0]}
    if library != "timm":
        names.add("transformers")
    return {f"{name} version": importlib.metadata.version(name) for name in sorted(names)}


def reason(error: BaseException) -> str:
    """The first line of another library's error."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:_LONGEST].rstrip(" .:")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what the libraries print while they read a model off the terminal."""
    logger = logging.getLogger("transformers")
    others = [logger, logging.getLogger("sentence_transformers"), logging.getLogger("timm")]
    before = [(one, one.level) for one in others]
    for one in others:
        one.setLevel(logging.ERROR)
    bars = _progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in before:
            one.setLevel(level)
        if bars is not None:
            bars.enable_progress_bar()


def _progress_bars() -> Any:
    """Turns transformers' progress bars off; what turns them on again, None where they were off."""
    found = importlib.import_module("transformers.utils.logging")
    if not found.is_progress_bar_enabled():
        return None
    found.disable_progress_bar()
    return found


@contextlib.contextmanager
def loading(spec: str, what: str) -> Iterator[None]:
    """Turns what a library says of a file that it cannot read into one sentence.

    Args:
      spec: of the tower.
      what: the library and what it reads.

    Raises:
      UserError: for any error but a `UserError`, which stays as it is.
    """
    try:
        with quiet():
            yield
    except UserError:
        raise
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # Each library has errors of its own, down to KeyError.
        if "trust_remote_code" in str(error):
            raise brings_code(spec, reason(error)) from error
        if "torchvision" in str(error):
            raise UserError(
                f"tower {spec!r}: {what} without torchvision; run pip install torchvision"
            ) from error
        raise UserError(
            f"tower {spec!r}: {what} ({reason(error)}); look whether the directory is complete and "
            "the library of the version that it was written with"
        ) from error


def brings_code(spec: str, found: str) -> UserError:
    """An error about a model whose own code would have to be run.

    Args:
      spec: of the tower.
      found: where its files say so.
    """
    return UserError(
        f"tower {spec!r} brings code of its own ({found[:_LONGEST]}), which would be run with all "
        "your rights; read it, and write trust_remote_code=True if you trust it"
    )


def device(name: str, key: str) -> Any:
    """The torch device of a name; "auto" is a GPU where torch has one.

    Args:
      name: "auto", "cpu", "cuda", "cuda:1", "mps".
      key: to name in messages.

    Raises:
      UserError: for one that is not there.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("cpu")
    try:
        chosen = torch.device(name)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"{key}: torch has no device {name!r} here ({reason(error)}); write 'auto' or 'cpu'"
        ) from error
    return chosen
