"""Images and captions encoded a second, against torch and ONNX Runtime on the same CPU.

    python tests/benchmarks/encode.py [--images 32] [--captions 512] [--rounds 5] [--sizes 112,224]

Prints one JSON line; progress goes to stderr. Needs torch, transformers, onnx and onnxruntime.
The towers are demo:vit_s14 and demo:minilm with their real weights, images those of demo:twemoji,
captions its words joined to mixed lengths (mean about 13 tokens, at most 64). Every contestant
takes its own best batch size and two threads; rounds are interleaved and medians taken, so that a
busy machine is busy for all. Images are decoded before; tokenising counts. `cpu_rate` is per second
of processor time on both threads: it still tells when other processes spoil the wall clocks.

Errors are relative to torch in float32, in norm, over all outputs. For images, everyone runs all
blocks; the ratio for an output is that of the fastest of ours to the fastest peer among those whose
error there is at most 3e-3. For captions it is ours in bfloat16 to each peer.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # Idle threads that spin slow the next one.

import numpy as np
import onnxruntime
import torch
import transformers

from ape_jax import towers
from ape_jax.data.specs import open_pairs
from ape_jax.demo.towers import assets
from ape_jax.features import encode
from ape_jax.images.decode import load_image
from ape_jax.parallel import mesh as mesh_lib

THREADS = 2
ACCURATE = 3e-3
LAYER = 9  # What the recipe `demo` reads.


@dataclasses.dataclass
class Contestant:
    """`run(batch)` encodes everything, `batch` rows at a time, and gives what is compared."""

    run: Callable[[int], Any]
    batches: tuple[int, ...]
    errors: dict[str, float] = dataclasses.field(default_factory=dict)
    wall: list[float] = dataclasses.field(default_factory=list)
    cpu: list[float] = dataclasses.field(default_factory=list)

    def timed(self, batch: int) -> tuple[float, float]:
        """Seconds on the wall and of one processor."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.run(batch)
        return time.perf_counter() - wall, time.process_time() - cpu


class TorchImages(torch.nn.Module):
    """CLS + mean of patches, of the final output and of a hidden state."""

    def __init__(self, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.model = transformers.AutoModel.from_pretrained(
            assets.tower_dir("vit_s14"), dtype=dtype, attn_implementation="sdpa"
        ).eval()

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """f32 [B, 2 d] each."""
        out = self.model(pixels.to(self.model.dtype), output_hidden_states=True)

        def pooled(x: torch.Tensor) -> torch.Tensor:
            x = x.float()
            return torch.cat([x[:, 0], x[:, 1:].mean(1)], -1)

        return pooled(out.last_hidden_state), pooled(out.hidden_states[LAYER])


def batched(call: Callable[[Any], Any], pixels: Any) -> Callable[[int], tuple[np.ndarray, ...]]:
    """`call` on slices of `pixels`, joined."""

    def run(batch: int) -> tuple[np.ndarray, ...]:
        with torch.inference_mode():
            parts = [call(pixels[i : i + batch]) for i in range(0, len(pixels), batch)]
        return tuple(np.concatenate([np.asarray(x) for x in column]) for column in zip(*parts))

    return run


def torch_images(pixels: torch.Tensor) -> dict[str, Contestant]:
    """torch in float32 (two precisions), bfloat16 and autocast."""
    wide, narrow = TorchImages(), TorchImages(torch.bfloat16)

    def at(precision: str) -> Callable[[torch.Tensor], Any]:
        def call(x: torch.Tensor) -> Any:
            torch.set_float32_matmul_precision(precision)
            try:
                return wide(x)
            finally:
                torch.set_float32_matmul_precision("highest")

        return call

    def autocast(x: torch.Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return wide(x)

    calls = {"torch_f32_highest": at("highest"), "torch_f32_medium": at("medium")}
    calls |= {"torch_bf16": narrow, "torch_autocast": autocast}
    return {name: Contestant(batched(call, pixels), (4, 8, 16)) for name, call in calls.items()}


def onnx_images(pixels: np.ndarray, folder: Path) -> Contestant:
    """ONNX Runtime on the graph that torch exports."""
    path = str(folder / f"{pixels.shape[-1]}.onnx")
    example = (torch.from_numpy(pixels[:2]),)
    axes = {name: {0: "batch"} for name in ("pixels", "final", "layer")}
    names = {"input_names": ["pixels"], "output_names": ["final", "layer"], "dynamic_axes": axes}
    torch.onnx.export(TorchImages(), example, path, opset_version=17, dynamo=False, **names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Contestant(batched(lambda x: session.run(None, {"pixels": x}), pixels), (1, 4, 8))


def frozen(spec: str, dtype: str, batch: int, **options: Any) -> encode.FrozenTower:
    """One of our towers, as a run has it."""
    read = {name: options.pop(name) for name in ("layer", "pooling") if name in options}
    (tower, weights), mesh = towers.read(spec, dtype=dtype, **options), mesh_lib.make_mesh()
    params = mesh_lib.place_frozen(weights, mesh, 2**20)
    return encode.FrozenTower(tower=tower, params=params, mesh=mesh, batch=batch, **read)


def our_images(images: np.ndarray, dtype: str) -> Contestant:
    """`stream_images` in one dtype; the hidden state is encoded for its error alone."""
    batch, size = min(32, len(images)), images.shape[1]

    def encoder(layer: int) -> Callable[[int], np.ndarray]:
        read = {"layer": layer, "pooling": "cls+mean", "image_size": size}
        reader = frozen("demo:vit_s14", dtype, batch, **read)

        def run(batch: int) -> np.ndarray:
            place, none = np.arange(batch, dtype=np.int32), np.zeros(batch, np.int32)
            batches = (
                {"image": part, "index": place[: len(part)], "view": none[: len(part)]}
                | {"valid": np.ones(len(part), bool)}
                for part in (images[i : i + batch] for i in range(0, len(images), batch))
            )
            return np.concatenate([out for _, _, out in reader.stream_images(batches)])

        return run

    final, inner = encoder(-1), encoder(LAYER)
    seen = inner(batch)
    return Contestant(lambda batch: (final(batch), seen), (batch,))


def torch_captions(texts: list[str], lengths: np.ndarray) -> dict[str, Contestant]:
    """transformers' BERT, padded to the longest of each batch, as given and sorted by length."""
    folder = assets.tower_dir("minilm")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    models = {
        name: transformers.AutoModel.from_pretrained(folder, dtype=dtype).eval()
        for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16))
    }

    def contestant(model: Any, order: np.ndarray) -> Contestant:
        def run(batch: int) -> tuple[np.ndarray]:
            rows: list[Any] = [None] * len(texts)
            for start in range(0, len(order), batch):
                chosen = order[start : start + batch]
                given = tokenizer([texts[i] for i in chosen], padding=True, return_tensors="pt")
                with torch.inference_mode():
                    out = model(**given).last_hidden_state.float().numpy()
                for i, row, mask in zip(chosen, out, given["attention_mask"].numpy()):
                    rows[i] = row[mask.astype(bool)]
            return (np.concatenate(rows),)

        return Contestant(run, (16, 64))

    orders = {"": np.arange(len(texts)), "_sorted": np.argsort(lengths, kind="stable")}
    return {
        f"torch_{name}{suffix}": contestant(model, order)
        for name, model in models.items()
        for suffix, order in orders.items()
    }


def our_captions(texts: list[str], dtype: str) -> Contestant:
    """`stream_texts` in one dtype."""
    reader = frozen("demo:minilm", dtype, 64)

    def run(_: int) -> tuple[np.ndarray]:
        rows: list[Any] = [None] * len(texts)
        for places, encoded in reader.stream_texts(texts):
            for i, row in zip(places, encoded):
                rows[i] = row
        return (np.concatenate(rows),)

    return Contestant(run, (64,))


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
            contestants = torch_images(torch.from_numpy(pixels))
            contestants["onnxruntime_f32"] = onnx_images(pixels, Path(folder))
            for dtype in ("bfloat16", "float32"):
                contestants[f"ours_{dtype}"] = our_images(images.astype(np.float32), dtype)
            result = compare(contestants, len(images), "torch_f32_highest", options.rounds)
            ratios = at_equal_accuracy(result)
            report[f"images_{size}"] = result | {"ratio_at_equal_accuracy": ratios}
    if options.captions:
        names = [text for pair in pairs for text in pair.captions]
        texts = mixed(names, options.captions)
        lengths = towers.load("demo:minilm").prepare.lengths(texts)
        contestants = torch_captions(texts, lengths)
        for dtype in ("bfloat16", "float32"):
            contestants[f"ours_{dtype}"] = our_captions(texts, dtype)
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
