"""Images encoded a second from Python, decoded by one thread between batches and by several ahead.

    python tests/benchmarks/encode_images.py [--images 256] [--pixels 640] [--rounds 3]

Prints one JSON line. JPEG photographs of noise, `--pixels` wide, are decoded, prepared for
demo:vit_s14 at 112 px and encoded by a model with fresh heads. `one_thread` prepares a batch, then
encodes it, as `encode_image` did before; `threads` is `encode_image`; `decode_only` and
`encode_only` are their parts. Rounds are interleaved and medians taken.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

import ape_jax
from ape_jax.images.batches import decoded_batches
from ape_jax.images.decode import load_image


def _photograph(seed: int, pixels: int) -> bytes:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
    file = io.BytesIO()
    small.resize((pixels, pixels * 3 // 4), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--pixels", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    images = [_photograph(i, args.pixels) for i in range(args.images)]
    with tempfile.TemporaryDirectory() as cache:
        pairs = [(image, f"number {i}") for i, image in enumerate(images[:16])]
        model = ape_jax.fit(
            image="demo:vit_s14",
            text="demo:minilm",
            pairs=pairs,
            steps=2,
            views=1,
            image_size=112,
            cache_dir=cache,
        )

        def prepare(image: bytes) -> np.ndarray:
            return model.transform(load_image(image))

        def one_thread() -> None:
            for start in range(0, len(images), model.rows):
                batch = np.stack([prepare(x) for x in images[start : start + model.rows]])
                model.encode_batches(
                    "image", [({"image": batch}, np.arange(len(batch)))], len(batch)
                )

        ready = np.stack([prepare(x) for x in images[: model.rows]])

        def encode_only() -> None:
            for _ in range(-(-len(images) // model.rows)):
                model.encode_batches(
                    "image", [({"image": ready}, np.arange(len(ready)))], len(ready)
                )

        ways: dict[str, Callable[[], object]] = {
            "one_thread": one_thread,
            "threads": lambda: model.encode_image(images, progress=False),
            "decode_only": lambda: list(decoded_batches(images, prepare, model.rows)),
            "encode_only": encode_only,
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        one_thread()  # Compiles.
        for _ in range(args.rounds):
            for name, way in ways.items():
                start = time.monotonic()
                way()
                seconds[name].append(time.monotonic() - start)
    rates = {name: round(len(images) / statistics.median(s), 1) for name, s in seconds.items()}
    print(json.dumps({"images_s": rates, "cores": os.cpu_count(), "pixels": args.pixels}))


if __name__ == "__main__":
    main()
