"""Encodes images and texts with exported programs: run alone, on jax without any of our code.

    python encode_stablehlo.py JOB.json

JOB holds `directories`, `images` (paths), `texts`, `batches` (numbers of rows to encode together)
and `out`, an .npz that gets `image_I_ROWS` and `text_I_ROWS` of the I-th directory.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

for name in ("ape_jax", "flax", "torch"):
    sys.modules[name] = None  # As where they are not installed: none of them must be needed.
os.environ["JAX_PLATFORMS"] = "cpu"  # Whoever started this may hold the accelerator.

import jax  # noqa: E402
import numpy as np  # noqa: E402
import PIL.Image  # noqa: E402
import transformers  # noqa: E402
from jax import export  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402


def encode(directory: str, job: dict[str, Any]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Embeddings f32 [n, E] of the job's images and texts, by how many rows went at a time.

    Texts are padded to the longest of those that are encoded together.
    """
    processor = transformers.AutoProcessor.from_pretrained(directory, trust_remote_code=True)
    run = {name: _program(Path(directory), name) for name in ("image", "text")}

    def images(paths: list[str]) -> np.ndarray:
        opened = [PIL.Image.open(path) for path in paths]
        return run["image"](processor(images=opened, return_tensors="np")["pixel_values"])

    def texts(captions: list[str]) -> np.ndarray:
        batch = processor(text=captions, return_tensors="np", padding=True)
        names = [x for x in ("input_ids", "attention_mask", "language") if x in batch]
        return run["text"](*(batch[name].astype("int32") for name in names))

    halves = (images, job["images"]), (texts, job["texts"])
    return {rows: tuple(_in_parts(*half, rows) for half in halves) for rows in job["batches"]}


def _program(directory: Path, name: str) -> Callable[..., np.ndarray]:
    program = export.deserialize((directory / f"{name}.stablehlo").read_bytes())
    weights = jax.device_put(load_file(directory / f"{name}.safetensors"))
    run = jax.jit(program.call)
    return lambda *inputs: np.asarray(run(weights, *inputs))


def _in_parts(encode: Callable[[Any], np.ndarray], rows: list[Any], size: int) -> np.ndarray:
    return np.concatenate([encode(rows[i : i + size]) for i in range(0, len(rows), size)])


def main(path: str) -> None:
    """Does one job."""
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    arrays = {}
    for i, directory in enumerate(job["directories"]):
        for rows, (image, text) in encode(directory, job).items():
            arrays[f"image_{i}_{rows}"], arrays[f"text_{i}_{rows}"] = image, text
    np.savez(job["out"], **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
