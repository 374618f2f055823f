"""The whole stage of extraction beside encoding alone, on the demo's images and captions.

    python tests/benchmarks/extract.py [--images 512] [--captions 4096] [--rounds 3] [--place DIR]

prints one JSON line; progress goes to stderr. In each round, in turn:

* `encode`: the tower over images that are decoded already, and over captions, as the cache does it;
* `extract`: decode, tokenise, encode, write and fsync into an empty cache;
* `load`: verify every byte of that cache and read it into memory.

Medians over the rounds. `share` is images/s of `extract` by images/s of `encode`: what decoding and
writing leave of the tower's own speed.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

from ape_jax import towers
from ape_jax.data import image_loader
from ape_jax.data.pairs import Pairs
from ape_jax.data.specs import open_pairs
from ape_jax.features import encode, extract, jobs
from ape_jax.features.dataset import captions_of
from ape_jax.parallel import mesh as mesh_lib

BF16 = np.dtype(ml_dtypes.bfloat16)


def main() -> None:
    """Measures what the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--captions", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--place", help="where the caches are written; a temporary directory")
    args = parser.parse_args()
    source = open_pairs("demo:twemoji:train")
    chosen = [source[i] for i in range(min(args.images, len(source)))]
    images = image_job(args, Pairs.of(chosen, source.spec))
    captions = caption_job(args, captions_of(source).texts[: args.captions])
    seconds: dict[str, list[float]] = {}
    for round_ in range(-1, args.rounds):  # The first compiles.
        with tempfile.TemporaryDirectory(dir=args.place, prefix="ape_jax_bench_") as root:
            for name, run in runs(images, captions, pathlib.Path(root)):
                start = time.perf_counter()
                run()
                if round_ >= 0:
                    seconds.setdefault(name, []).append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(json.dumps(figures(images, captions, median, args)))


def runs(
    images: jobs.ImageJob, captions: jobs.CaptionJob, root: pathlib.Path
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is timed, in order; decoding for `encode` happens outside the clock."""
    place = extract.Place(root=root)
    decoded = list(
        image_loader.image_batches(
            images.pairs,
            transform=images.frozen.tower.prepare.transform,
            batch=images.frozen.rows,
        )
    )

    def drain(stream: Iterator[Any]) -> None:
        for _ in stream:
            pass

    yield "encode images", lambda: drain(images.frozen.stream_images(decoded))
    yield "extract images", lambda: extract.fill(images, place)
    yield "load images", lambda: extract.images(images, place)
    yield (
        "encode captions",
        lambda: drain(captions.frozen.stream_texts(captions.texts)),
    )
    yield "extract captions", lambda: extract.fill(captions, place)
    yield "load captions", lambda: extract.captions(captions, place)


def figures(
    images: jobs.ImageJob,
    captions: jobs.CaptionJob,
    median: dict[str, float],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Rates from median seconds."""
    nbytes = {job.unit: job.need([range(job.count)]) for job in (images, captions)}
    return {
        "benchmark": "extract",
        "size": args.size,
        "images": images.count,
        "captions": captions.count,
        "images_per_s": {
            "encode": round(images.count / median["encode images"], 1),
            "extract": round(images.count / median["extract images"], 1),
            "share": round(median["encode images"] / median["extract images"], 3),
        },
        "captions_per_s": {
            "encode": round(captions.count / median["encode captions"], 1),
            "extract": round(captions.count / median["extract captions"], 1),
            "share": round(median["encode captions"] / median["extract captions"], 3),
        },
        "load_mb_per_s": {
            "images": round(nbytes["views"] / 1e6 / median["load images"], 1),
            "captions": round(nbytes["captions"] / 1e6 / median["load captions"], 1),
        },
        "mb": {unit: round(size / 1e6, 2) for unit, size in nbytes.items()},
        "seconds": {name: round(value, 3) for name, value in median.items()},
    }


def image_job(args: argparse.Namespace, pairs: Pairs) -> jobs.ImageJob:
    """Clean views through the demo's ViT, layer and pooling as in the recipe `demo`."""
    frozen = reader("demo:vit_s14", "image", args, layer=9, pooling="cls+mean")
    return jobs.ImageJob(what="images", pairs=pairs, frozen=frozen, dtype=BF16)


def caption_job(args: argparse.Namespace, texts: tuple[str, ...]) -> jobs.CaptionJob:
    """The demo's captions through MiniLM."""
    frozen = reader("demo:minilm", "text", args)
    return jobs.CaptionJob(
        what="captions", texts=texts, spec="demo:twemoji:train", frozen=frozen, dtype=BF16
    )


def reader(spec: str, kind: str, args: argparse.Namespace, **read: Any) -> encode.FrozenTower:
    """A demo tower in bf16."""
    options = {"image_size": args.size} if kind == "image" else {}
    (tower, weights), mesh = towers.read(spec, kind=kind, **options), mesh_lib.make_mesh()
    params = mesh_lib.place_replicated(weights, mesh)
    return encode.FrozenTower(tower=tower, params=params, mesh=mesh, batch=args.batch, **read)


if __name__ == "__main__":
    main()
