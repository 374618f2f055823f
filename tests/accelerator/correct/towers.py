"""Towers on the device beside torch's on the same one, for the parts of texts and of images."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import torch

from ape_jax import towers
from tests.accelerator.figures import Figures, say
from tests.accelerator.settings import Settings
from tests.benchmarks import parity

# Of the largest value, as all differences here. In float32 the families are within 1.1e-6 of torch
# on a processor (docs/results/parity.json), which is the rounding of three blocks. A GPU sums in
# another order and has its own erf, exp and rsqrt, each right to a few units in the last place: ten
# times as much. A product that is left in tf32 is off by 1e-3, one in bfloat16 by 1e-2.
FLOAT32 = 1e-5
# Inputs of products have 8 bits, and these blocks weights ten times as large as trained ones. The
# measure is what torch itself loses in bfloat16 on the same weights, 7e-3 to 1.5e-2: ours keeps
# more in float32 and loses half of that on a processor, so that half as much again is generous.
BFLOAT16, OF_TORCH = 1e-2, 1.5


def compare(kind: str, settings: Settings, figures: Figures) -> None:
    """Prints how far each native family is from torch, in float32 and in bfloat16."""
    for model_type in _types(kind, settings):
        try:
            model = parity.made(model_type, kind)
        except (ValueError, AttributeError) as error:  # An older transformers has fewer.
            figures.left_out(model_type, f"not in this transformers ({error})"[:200])
            continue
        say(f"{model_type}, {settings.left():.0f} s left")
        with tempfile.TemporaryDirectory() as folder:
            _compare(model_type, kind, model, pathlib.Path(folder), settings, figures)


def _types(kind: str, settings: Settings) -> Iterator[str]:
    """All model types of a kind; in small one of each module that families share."""
    seen: set[str] = set()
    for model_type, family in parity.types():
        if family.kind != kind:
            continue
        where = family.module.__module__ if settings.small else model_type
        if where not in seen:
            seen.add(where)
            yield model_type


def _compare(
    model_type: str,
    kind: str,
    model: Any,
    folder: pathlib.Path,
    settings: Settings,
    figures: Figures,
) -> None:
    parity.save(model, folder, kind)
    model = model.to(settings.torch_device)
    exact, params = towers.read(folder, kind=kind, dtype="float32")
    # Of images one batch of the native size and one that is not square: each shape is compiled.
    batches = list(parity.batches(model_type, exact))
    batches = batches if kind == "text" else batches[::2]
    if settings.small:
        batches = batches[:1]
    wanted = [parity.wanted(model, batch) for batch in batches]
    off = max(map(parity.apart, wanted, *_given(exact, params, batches, settings)))
    if not figures.checked(f"{model_type}, float32", off, bound=FLOAT32, unit="of the largest"):
        _say_whether_inexact(exact, params, batches, wanted, settings)
    narrow, params = towers.read(folder, kind=kind, dtype="bfloat16")
    off = max(map(parity.apart, wanted[:1], *_given(narrow, params, batches[:1], settings)))
    by_torch = _torch_narrow(model, batches[0], wanted[0])
    bound = max(BFLOAT16, OF_TORCH * by_torch)
    beside = {"torch in bfloat16": by_torch}
    name = f"{model_type}, bfloat16"
    figures.checked(name, off, bound=bound, unit="of the largest", beside=beside)


def _given(
    tower: Any, params: Any, batches: list[dict[str, np.ndarray]], settings: Settings
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Tokens and masks of all batches, as users have them: no precision is asked for."""
    program = jax.jit(lambda p, b: tower.apply(p, b, pooling="none"))
    options = parity.QUICK if settings.device == "cpu" else None
    compiled: dict[Any, Any] = {}
    tokens, masks = [], []
    for batch in batches:
        shapes = str(jax.tree.map(np.shape, batch))
        if shapes not in compiled:
            compiled[shapes] = program.lower(params, batch).compile(options)
        out = compiled[shapes](params, batch)
        tokens.append(np.asarray(out.tokens, np.float32))
        masks.append(np.asarray(out.mask))
    return tokens, masks


def _torch_narrow(model: Any, batch: dict[str, np.ndarray], want: np.ndarray) -> float:
    """What torch loses in bfloat16, 0 where it has an operation in float32 only."""
    try:
        got = parity.wanted(model.to(torch.bfloat16), batch)
    except RuntimeError as error:
        say(f"torch in bfloat16: {error}")
        return 0.0
    if got.ndim == 4:
        got, want = (x.reshape(*x.shape[:2], -1).swapaxes(1, 2) for x in (got, want))
    mask = batch.get("mask", np.ones(got.shape[:2], bool))
    return parity.apart(want, got, mask)


def _say_whether_inexact(
    tower: Any,
    params: Any,
    batches: list[dict[str, np.ndarray]],
    wanted: list[np.ndarray],
    settings: Settings,
) -> None:
    """Says whether a product was left at a lower precision, or something else is wrong."""
    with jax.default_matmul_precision("highest"):
        off = max(map(parity.apart, wanted, *_given(tower, params, batches, settings)))
    say(f"with every product exact it is {off:.2g}")
