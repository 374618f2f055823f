"""JPEG files to arrays for a tower on all cores: our loader, beside plain Pillow in threads."""

from __future__ import annotations

import concurrent.futures
import os
from pathlib import Path

import numpy as np
from PIL import Image

from ape_jax.data.image_loader import image_batches
from ape_jax.data.labelled import LabelledImage
from ape_jax.images.decode import ImageRef
from ape_jax.images.transforms import ImageTransform
from tests.accelerator.fast import compare
from tests.accelerator.figures import Figures
from tests.accelerator.settings import Settings

SIZE = 224


def run(settings: Settings, figures: Figures) -> None:
    """Prints images a second, of 500 x 375 and, as cameras make them, of 4000 x 3000 pixels."""
    for width, height, count in ((500, 375, 2048), (4000, 3000, 128)):
        figure = f"JPEG of {width} x {height} to {SIZE}, {os.cpu_count()} cores"
        if compare.has_time(settings, figures, figure, seconds=40):
            shape = (settings.pick(width, 90), settings.pick(height, 60))
            paths = photos(settings.out / "photos", *shape, settings.pick(count, 12))
            _decode(settings, figures, figure, paths)


def photos(folder: Path, width: int, height: int, count: int) -> list[Path]:
    """As many files of one picture with the grain and the edges that photos have."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 20 + 1, width // 20 + 1, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    grain = rng.normal(0, 6, smooth.shape)
    picture = Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))
    paths = [folder / f"{width}x{height}-{i}.jpg" for i in range(count)]
    picture.save(paths[0], quality=90)
    content = paths[0].read_bytes()
    for path in paths[1:]:
        path.write_bytes(content)
    return paths


def _decode(settings: Settings, figures: Figures, figure: str, paths: list[Path]) -> None:
    records = [LabelledImage(ImageRef(str(path), path.name), 0) for path in paths]
    transform = ImageTransform(size=SIZE, resize_size=SIZE, interpolation="bicubic")
    batch = settings.pick(64, 4)

    def ours() -> None:
        for _ in image_batches(records, transform=transform, batch=batch):
            pass

    def one(path: Path) -> np.ndarray:
        with Image.open(path) as image:
            image.draft("RGB", (2 * SIZE, 2 * SIZE))
            return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC))

    def pillow() -> None:
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for part in range(0, len(paths), batch):
                np.stack(list(pool.map(one, paths[part : part + batch])))

    calls = {compare.OURS: ours, "Pillow in threads": pillow}
    compare.figure(settings, figures, figure, calls, rows=len(paths), unit="images/s")
