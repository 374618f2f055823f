"""Images and captions encoded a second, against torch and ONNX Runtime on the same CPU.

    python tests/benchmarks/encode.py [--images 32] [--captions 512] [--rounds 5] [--sizes 112,224]
                                      [--shapes dinov3_s,modernbert_base,...]

Prints one JSON line; progress goes to stderr. Needs torch, transformers, onnx and onnxruntime.
The towers are demo:vit_s14 and demo:minilm with their real weights, images those of demo:twemoji,
captions its words joined to mixed lengths (mean about 13 tokens, at most 64). Every contestant
takes its own best batch size and two threads; rounds are interleaved and medians taken, so that a
busy machine is busy for all. Images are decoded before; tokenising counts. `cpu_rate` is per second
of processor time on both threads: it still tells when other processes spoil the wall clocks.

Errors are relative to torch in float32, in norm, over all outputs. For images, everyone runs all
blocks; the ratio for an output is that of the fastest of ours to the fastest peer among those whose
error there is at most 3e-3. For captions it is ours in bfloat16 to each peer.

`--shapes` adds towers with random weights (shapes.py), without ONNX Runtime: there the ratios are
those to torch in `float32` and in `bfloat16`, of the fastest of ours that is as accurate; and
seconds to compile are given by the number of blocks.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # Idle threads that spin slow the next one.

import numpy as np
import shapes
import torch
from contestants import (
    BERT,
    LAYER,
    THREADS,
    VIT,
    Contestant,
    onnx_images,
    our_captions,
    our_images,
    torch_captions,
    torch_images,
)

from ape_jax import towers
from ape_jax.data.specs import open_pairs
from ape_jax.images.decode import load_image

ACCURATE = 3e-3


def compare(contestants: dict[str, Contestant], count: int, reference: str, rounds: int) -> Any:
    """Errors, then rates: the best batch of each in one go, then interleaved rounds."""
    names = ("final", f"layer{LAYER}")
    want = contestants[reference].run(8)
    chosen = {}
    for name, one in contestants.items():
        got = one.run(one.batches[0])
        one.errors = {
            key: float(np.linalg.norm(g - w) / np.linalg.norm(w))
            for key, g, w in zip(names, got, want)
        }
        # The processor's time is the one that a busy machine leaves comparable.
        tries = {batch: one.timed(batch)[1] for batch in one.batches}
        chosen[name] = min(tries, key=tries.__getitem__)
        print(f"{name}: {one.errors}, batch {chosen[name]}", file=sys.stderr)
    for done in range(rounds):
        for name, one in contestants.items():
            wall, cpu = one.timed(chosen[name])
            one.wall.append(wall)
            one.cpu.append(cpu / THREADS)
        print(f"round {done + 1}/{rounds}", file=sys.stderr)
    result = {
        name: {
            "rate": round(count / statistics.median(one.wall), 2),
            "cpu_rate": round(count / statistics.median(one.cpu), 2),
            "batch": chosen[name],
            "error": {key: float(f"{value:.2g}") for key, value in one.errors.items()},
        }
        for name, one in contestants.items()
    }
    return result


def at_equal_accuracy(result: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Ours over the fastest peer, for each output, among those that are accurate there."""
    ratios: dict[str, dict[str, float | None]] = {}
    for output in ("final", f"layer{LAYER}"):
        accurate = {name: x for name, x in result.items() if x["error"][output] <= ACCURATE}
        ratios[output] = {}
        for key in ("rate", "cpu_rate"):
            ours = [x[key] for name, x in accurate.items() if name.startswith("ours")]
            peers = [x[key] for name, x in accurate.items() if not name.startswith("ours")]
            ratios[output][key] = round(max(ours) / max(peers), 3) if ours and peers else None
    return ratios


def at_equal_precision(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    """By torch's precision: the fastest of ours that is as accurate, over the fastest of torch."""
    ratios: dict[str, dict[str, float]] = {}
    for precision, names in (("float32", ("f32",)), ("bfloat16", ("bf16", "autocast"))):
        peers = [
            x for name, x in result.items() if name.startswith(tuple(f"torch_{n}" for n in names))
        ]
        ratios[precision] = {}
        for key in ("rate", "cpu_rate"):
            found = []
            for peer in peers:
                # Rounding in float32 is no difference, nor is a tenth of an error.
                bound = max(1.1 * peer["error"]["final"], 1e-5)
                ours = [x for n, x in result.items() if n.startswith("ours")]
                fair = [x[key] for x in ours if x["error"]["final"] <= bound]
                found.append(max(fair, default=0.0) / peer[key])
            ratios[precision][key] = round(min(found), 3)
    return ratios


def shaped(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One tower of `shapes.SHAPES`."""
    path, rng = shapes.directory(name, folder), np.random.default_rng(0)
    if shapes.SHAPES[name][0] == "image":
        count, reference = options.images, "torch_f32_highest"
        images = rng.normal(size=(count, 224, 224, 3)).astype(np.float32)
        pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        contestants = torch_images(path, torch.from_numpy(pixels))
        ours = functools.partial(our_images, str(path), images)
    else:
        count, reference = options.captions, "torch_f32"
        texts = mixed([f"w{i}" for i in range(shapes.WORDS)], count)
        lengths = np.asarray([len(text.split()) for text in texts])
        contestants = torch_captions(path, texts, lengths)
        ours = functools.partial(our_captions, str(path), texts)
    for dtype in ("bfloat16", "float32"):
        contestants[f"ours_{dtype}"] = ours(dtype)
    result = compare(contestants, count, reference, options.rounds)
    result["ratio_at_equal_precision"] = at_equal_precision(result)
    return result | {"compile_seconds": shapes.compile_seconds(path)}


def mixed(names: list[str], count: int) -> list[str]:
    """Captions of real words whose lengths are spread as those of descriptions are."""
    rng = np.random.default_rng(0)
    words = [word for name in names for word in name.split()]
    lengths = np.clip(np.round(rng.lognormal(2.25, 0.5, count)), 2, 60).astype(int)
    return [" ".join(rng.choice(words, size)) for size in lengths]


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--captions", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", default="112,224", help="'' for captions alone")
    parser.add_argument("--shapes", default="", help="names in shapes.py")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    pairs = open_pairs("demo:twemoji:train")
    spread = np.linspace(0, len(pairs) - 1, options.images).astype(int)
    report: dict[str, Any] = {"benchmark": "encode", "threads": THREADS}
    with tempfile.TemporaryDirectory() as folder:
        for size in map(int, filter(None, options.sizes.split(","))):
            transform = towers.load("demo:vit_s14", image_size=size).prepare.transform
            images = np.stack([transform(load_image(pairs[int(i)].image)) for i in spread])
            pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)
            contestants = torch_images(VIT, torch.from_numpy(pixels))
            contestants["onnxruntime_f32"] = onnx_images(pixels, Path(folder))
            for dtype in ("bfloat16", "float32"):
                contestants[f"ours_{dtype}"] = our_images("demo:vit_s14", images, dtype)
            result = compare(contestants, len(images), "torch_f32_highest", options.rounds)
            ratios = at_equal_accuracy(result)
            report[f"images_{size}"] = result | {"ratio_at_equal_accuracy": ratios}
        for name in filter(None, options.shapes.split(",")):
            report[name] = shaped(name, Path(folder), options)
    if options.captions and options.sizes:
        names = [text for pair in pairs for text in pair.captions]
        texts = mixed(names, options.captions)
        lengths = towers.load("demo:minilm").prepare.lengths(texts)
        contestants = torch_captions(BERT, texts, lengths)
        for dtype in ("bfloat16", "float32"):
            contestants[f"ours_{dtype}"] = our_captions("demo:minilm", texts, dtype)
        result = compare(contestants, len(texts), "torch_f32", options.rounds)
        result["tokens"] = {"mean": round(float(lengths.mean()), 1), "max": int(lengths.max())}
        peers = [name for name in contestants if name.startswith("torch")]
        for key in ("rate", "cpu_rate"):
            result[f"ours_over_{key}"] = {
                name: round(result["ours_bfloat16"][key] / result[name][key], 2) for name in peers
            }
        report["captions"] = result
    print(json.dumps(report))


if __name__ == "__main__":
    main()
