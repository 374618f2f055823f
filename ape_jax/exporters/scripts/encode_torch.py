"""Encodes images and texts with exported directories: run alone, where only torch is.

    python encode_torch.py JOB.json

JOB holds `directories`, `images` (paths), `texts`, `class` (of transformers, `AutoModel` or
another) and `out`, an .npz that gets `image_I` and `text_I` of the I-th directory, at unit length.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import PIL.Image
import torch
import transformers


def encode(directory: str, job: dict) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings f32 [n, E] of the job's images and texts."""
    options = {"trust_remote_code": True} if job["class"] == "AutoModel" else {}
    model_class = getattr(transformers, job["class"])
    model, info = model_class.from_pretrained(directory, output_loading_info=True, **options)
    if wrong := {key: value for key, value in info.items() if value}:
        raise SystemExit(f"its tensors are not those of its config: {wrong}")
    processor = transformers.AutoProcessor.from_pretrained(directory, **options)
    images = [PIL.Image.open(path) for path in job["images"]]
    texts = {"padding": True, "truncation": True, "return_tensors": "pt"}
    with torch.inference_mode():
        batch = processor(images=images, text=job["texts"], **texts)
        out = model.eval()(**batch)
    return out.image_embeds.numpy(), out.text_embeds.numpy()


def main(path: str) -> None:
    """Does one job."""
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    arrays = {}
    for i, directory in enumerate(job["directories"]):
        arrays[f"image_{i}"], arrays[f"text_{i}"] = encode(directory, job)
    np.savez(job["out"], **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
