"""Encoding captions of mixed lengths: sorted by length and padded alike, beside torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ape_jax import towers
from ape_jax.features import encode
from ape_jax.parallel import mesh as mesh_lib
from tests.accelerator.fast import compare, peer, shapes
from tests.accelerator.figures import Figures
from tests.accelerator.settings import Settings

LONGEST, WORDS = 64, 90
CASES = tuple((name, kind) for kind in ("bfloat16", "float32") for name in shapes.TEXT)


def run(settings: Settings, figures: Figures) -> None:
    """Prints captions a second of both towers and dtypes."""
    if not shapes.has_transformers() or peer.missing(settings):
        # Transformers makes the files of these towers, and its model needs torch.
        figures.left_out("text towers", "transformers or torch is not there")
        return
    for name, dtype in CASES[:1] if settings.small else CASES:
        figure = f"{name} {dtype}, captions of 5 to {LONGEST} words"
        if compare.has_time(settings, figures, figure, seconds=120):
            _tower(settings, figures, figure, name, dtype)


def captions(count: int) -> tuple[list[str], np.ndarray]:
    """Texts of as many words as COCO's captions have, with a tail; and how many each has."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.rint(rng.lognormal(np.log(11.0), 0.5, count)), 5, LONGEST).astype(int)
    return [" ".join(f"w{i}" for i in rng.integers(WORDS, size=n)) for n in lengths], lengths


def _tower(settings: Settings, figures: Figures, figure: str, name: str, dtype: str) -> None:
    """Both from texts to rows on the host, tokenising included: what extraction takes.

    `packed` sorts by length, as every run does, and `padded` makes all as long as the longest.
    """
    config, batch = shapes.text(settings, name), settings.pick(512, 16)
    texts, lengths = captions(settings.pick(16_384, 48))
    path = shapes.written(config, settings.out / "towers" / name, WORDS)
    reader = _reader(path, dtype, batch)
    given = sum(len(rows) for _, out in reader.stream_texts(texts) for rows in out)
    calls: dict[str, Callable[[], Any]] = {
        compare.OURS: lambda: [rows for _, rows in reader.stream_texts(texts)],
        "ours padded": lambda: _padded(reader, texts, batch),
    }
    for key, call in _peers(settings, config, dtype, path, texts, lengths, batch).items():
        calls[key] = call
    work = shapes.flops(config, [int(n) for n in lengths])
    compare.figure(
        settings,
        figures,
        figure,
        calls,
        rows=len(texts),
        unit="captions/s",
        flops=work,
        dtype=dtype,
        beside={"tokens": int(given)},
    )


def _reader(path: Path, dtype: str, batch: int) -> encode.FrozenTower:
    tower, weights = towers.read(path, kind="text", dtype=dtype, max_length=LONGEST)
    mesh = mesh_lib.make_mesh(1)
    params = mesh_lib.place_replicated(weights, mesh)
    return encode.FrozenTower(tower=tower, params=params, mesh=mesh, batch=batch)


def _padded(reader: encode.FrozenTower, texts: list[str], batch: int) -> list[np.ndarray]:
    """In the order given, all of the largest length, as loops are usually written."""
    prepare, out = reader.tower.prepare, []
    for start in range(0, len(texts), batch):
        bodies = prepare.bodies(texts[start : start + batch])
        ids = [np.asarray(body, np.int32) for body in bodies]
        out.append(reader(prepare.pad(ids, LONGEST), batch).tokens)
    return [np.asarray(x, np.float32) for x in out]


def _peers(
    settings: Settings,
    config: dict[str, Any],
    dtype: str,
    path: Path,
    texts: list[str],
    lengths: np.ndarray,
    batch: int,
) -> dict[str, Callable[[], Any]]:
    """Torch's, sorted by length, padded to the longest of a batch and rounded up to 8."""
    import transformers

    words = transformers.AutoTokenizer.from_pretrained(path)
    order, where = np.argsort(lengths, kind="stable"), peer.device(settings)
    models = peer.models(settings, dtype, lambda kind: shapes.torch_model(config, kind))

    def runs(call: Callable[..., Any]) -> Callable[[], Any]:
        def run() -> list[np.ndarray]:
            out = []
            for start in range(0, len(order), batch):
                chosen = [texts[i] for i in order[start : start + batch]]
                # A multiple, so that a compiled model meets few lengths.
                how = {"padding": True, "pad_to_multiple_of": 8, "truncation": True}
                given = words(chosen, max_length=LONGEST, return_tensors="pt", **how)
                ids, mask = (given[k].to(where) for k in ("input_ids", "attention_mask"))
                found = call(input_ids=ids, attention_mask=mask).last_hidden_state
                out.append((found, mask))
            return [x.float()[m.bool()].cpu().numpy() for x, m in out]

        return run

    return {key: runs(call) for key, (_, call) in models.items()}
