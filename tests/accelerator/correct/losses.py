"""Losses, dense and in tiles: value and gradients beside float64 on the processor."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ape_jax.align import losses
from ape_jax.align.losses.hard import Hard
from tests.accelerator.correct import apart
from tests.accelerator.figures import Figures
from tests.accelerator.settings import Settings
from tests.align.losses import negclip, references

# Of the largest value of each: the loss, and the gradients of both sides, scale and bias. Sums over
# a row of thousands, in float32, are off by some 1e-6; exp at scale 20 makes of a cosine's 6e-8
# another 1e-6. The processor's tests have 1e-5 for 48 pairs. A product in tf32 gives 1e-3 and more.
FLOAT32 = 3e-5
# Inputs in bfloat16 are the same numbers for both; only gradients are rounded to 8 bits at the end,
# and weights to 8 bits before the product that makes them.
BFLOAT16_SLOPES = 1e-2
SCALARS = {"softmax": (20.0,), "sigmoid": (20.0, -8.0)}


def run(settings: Settings, figures: Figures) -> None:
    """Prints how far each form of each loss is from its definition."""
    for title, name, impl, dtype, options in _cases(settings.small):
        _contrastive(title, name, impl, dtype, options, settings, figures)
    for impl in ("dense", "ring"):
        _negative_captions(impl, figures)
    _terms(figures)


def _cases(small: bool) -> Iterator[tuple[str, str, str, str, Mapping[str, Any]]]:
    for name, own in (("softmax", {"smoothing": 0.1}), ("sigmoid", {"normalize": "square"})):
        for impl in ("dense", "ring"):
            yield f"{name}, {impl}", name, impl, "float32", {}
            yield f"{name}, {impl}, repeated ids and options", name, impl, "float32", own
            if impl == "ring" or not small:
                yield f"{name}, {impl}, bfloat16", name, impl, "bfloat16", {}


def _contrastive(
    title: str,
    name: str,
    impl: str,
    dtype: str,
    options: Mapping[str, Any],
    settings: Settings,
    figures: Figures,
) -> None:
    # More rows than a tile of the ring has: 8,192 on a GPU, 1,024 elsewhere.
    full = 10_000 if settings.device == "gpu" else 3000
    batch, width = settings.pick(full, 1100), settings.pick(512, 16)
    zimg, ztxt, ids = _embeddings(batch, width)
    zimg, ztxt = (np.asarray(jnp.asarray(z, dtype)) for z in (zimg, ztxt))
    ids = ids if options else None
    if options:
        options = {**options, "groups": 2}
    scalars = [np.float32(x) for x in SCALARS[name]]
    program = _program(getattr(losses, name), len(scalars), impl=impl, **options)
    value, slopes = jax.device_get(program(ids, zimg, ztxt, *scalars))
    want, wanted = _reference(name, dtype, batch, width, tuple(options.items()))
    figures.checked(title, apart(value, want), bound=FLOAT32, unit="of the loss")
    for what, ours, theirs in (
        ("images", slopes[0], wanted[0]),
        ("texts", slopes[1], wanted[1]),
        ("scalars", slopes[2:], wanted[2:]),
    ):
        is_narrow = dtype == "bfloat16" and what != "scalars"
        bound = BFLOAT16_SLOPES if is_narrow else FLOAT32
        off = apart(ours, theirs)
        figures.checked(f"{title}, gradient of {what}", off, bound=bound, unit="of the largest")


@functools.cache
def _reference(name: str, dtype: str, batch: int, width: int, options: tuple[Any, ...]) -> Any:
    """Value and gradients in float64; dense and ring have the same."""
    zimg, ztxt, ids = _embeddings(batch, width)
    narrow = [np.asarray(jnp.asarray(z, dtype)) for z in (zimg, ztxt)]
    wide = [np.float64(x) for x in (*narrow, *map(np.float32, SCALARS[name]))]
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        loss = getattr(losses, f"{name}_reference")
        program = _program(loss, len(SCALARS[name]), **dict(options))
        return jax.device_get(program(ids if options else None, *wide))


def _program(loss: Any, scalars: int, **options: Any) -> Any:
    def value(ids: Any, *arguments: Any) -> Any:
        return loss(*arguments, ids=ids, **options)

    return jax.jit(jax.value_and_grad(value, argnums=tuple(range(1, 3 + scalars))))


@functools.cache
def _embeddings(batch: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of images and of texts near them, and ids of which many stand twice."""
    rng = np.random.default_rng(0)
    zimg = rng.normal(size=(batch, width))
    ztxt = zimg + rng.normal(size=(batch, width))
    unit = [(z / np.linalg.norm(z, axis=1, keepdims=True)).astype("f") for z in (zimg, ztxt)]
    return *unit, rng.integers(0, batch, batch).astype(np.int32)


def _negative_captions(impl: str, figures: Figures) -> None:
    """NegCLIP's loss beside torch in float64."""

    def loss(zimg: Any, ztxt: Any, zhard: Any) -> Any:
        hard = Hard(zhard, jnp.asarray(negclip.hard_ids()), jnp.asarray(negclip.CAPTIONS))
        options = {"ids": negclip.IDS, "hard": hard, "groups": 2, "smoothing": 0.2, "impl": impl}
        return losses.softmax(zimg, ztxt, negclip.SCALE, **options)

    program = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
    found = program(*map(jnp.asarray, negclip.embeddings()))
    value, slopes = negclip.expected(groups=2, smoothing=0.2)
    off = apart(found, (value, tuple(slopes)))
    figures.checked(f"negative captions, {impl}", off, bound=FLOAT32, unit="of the largest")


def _terms(figures: Figures) -> None:
    """What is added to a loss, beside NumPy and torch in float64."""
    before, after = references.features()
    program = jax.jit(jax.value_and_grad(lambda x: losses.structure(before, x, temperature=0.2)))
    value, slope = jax.device_get(program(jnp.asarray(after)))
    want = references.structure(before, after, 0.2)
    figures.checked("structure", apart(value, want), bound=FLOAT32, unit="of the term")
    places = [(0, 0), (7, 3), (20, 15), (47, 8)]
    by_hand = references.differences(lambda x: references.structure(before, x, 0.2), after, places)
    off = max(abs(slope[place] - x) for place, x in zip(places, by_hand)) / abs(slope).max()
    figures.checked("structure, gradient", off, bound=FLOAT32, unit="of the largest")
    student, teacher = references.similarities(0), references.similarities(1)
    # A plan is a thousand sums of exponentials at temperature 0.005, so that a cosine's last bit
    # counts 200 times.
    found = jax.jit(jax.value_and_grad(losses.klot))(jnp.asarray(student), jnp.asarray(teacher))
    off = apart(found, references.klot(student, teacher))
    figures.checked("KLOT", off, bound=FLOAT32, unit="of the largest")
    found = jax.jit(jax.value_and_grad(losses.subwords))(*references.subword_rows())
    off = apart(found, references.subwords_by_torch(*references.subword_rows()))
    figures.checked("subwords", off, bound=FLOAT32, unit="of the largest")
