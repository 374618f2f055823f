"""Encodes images and texts with ONNX graphs: run alone, where ONNX Runtime is and no torch.

    python encode_onnx.py JOB.json

JOB holds `directories`, `images` (paths), `texts`, `batches` (numbers of rows to encode together)
and `out`, an .npz that gets `image_I_ROWS` and `text_I_ROWS` of the I-th directory.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.modules["torch"] = None  # As where it is not installed: an ONNX export must not need it.

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import PIL.Image  # noqa: E402
import transformers  # noqa: E402


def encode(directory: str, job: dict[str, Any], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings f32 [n, E] of the job's images and texts, so many rows at a time.

    Texts are padded to the longest of those that are encoded together.
    """
    processor = transformers.AutoProcessor.from_pretrained(directory, trust_remote_code=True)
    run = {name: _session(Path(directory) / f"{name}.onnx") for name in ("image", "text")}

    def images(paths: list[str]) -> np.ndarray:
        opened = [PIL.Image.open(path) for path in paths]
        return run["image"](processor(images=opened, return_tensors="np"))

    def texts(captions: list[str]) -> np.ndarray:
        return run["text"](processor(text=captions, return_tensors="np", padding=True))

    return _in_parts(images, job["images"], rows), _in_parts(texts, job["texts"], rows)


def _session(path: Path) -> Callable[[Any], np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    return lambda batch: session.run(None, {name: batch[name] for name in names})[0]


def _in_parts(encode: Callable[[Any], np.ndarray], rows: list[Any], size: int) -> np.ndarray:
    return np.concatenate([encode(rows[i : i + size]) for i in range(0, len(rows), size)])


def main(path: str) -> None:
    """Does one job."""
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    arrays = {}
    for i, directory in enumerate(job["directories"]):
        for rows in job["batches"]:
            image, text = encode(directory, job, rows)
            arrays[f"image_{i}_{rows}"], arrays[f"text_{i}_{rows}"] = image, text
    np.savez(job["out"], **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
