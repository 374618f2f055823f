"""Who encodes in encode.py: transformers in torch, ONNX Runtime, and ours."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import transformers

from ape_jax import towers
from ape_jax.demo.towers import assets
from ape_jax.features import encode
from ape_jax.parallel import mesh as mesh_lib

THREADS = 2
LAYER = 9  # What the recipe `demo` reads.
VIT, BERT = Path(assets.tower_dir("vit_s14")), Path(assets.tower_dir("minilm"))


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

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.model = transformers.AutoModel.from_pretrained(
            folder, dtype=dtype, attn_implementation="sdpa"
        ).eval()
        self.prefix = 1 + getattr(self.model.config, "num_register_tokens", 0)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """f32 [B, 2 d] each."""
        out = self.model(pixels.to(self.model.dtype), output_hidden_states=True)

        def pooled(x: torch.Tensor) -> torch.Tensor:
            x = x.float()
            return torch.cat([x[:, 0], x[:, self.prefix :].mean(1)], -1)

        return pooled(out.last_hidden_state), pooled(out.hidden_states[LAYER])


def batched(call: Callable[[Any], Any], pixels: Any) -> Callable[[int], tuple[np.ndarray, ...]]:
    """`call` on slices of `pixels`, joined."""

    def run(batch: int) -> tuple[np.ndarray, ...]:
        with torch.inference_mode():
            parts = [call(pixels[i : i + batch]) for i in range(0, len(pixels), batch)]
        return tuple(np.concatenate([np.asarray(x) for x in column]) for column in zip(*parts))

    return run


def torch_images(folder: Path, pixels: torch.Tensor) -> dict[str, Contestant]:
    """torch in float32 (two precisions), bfloat16 and autocast."""
    wide, narrow = TorchImages(folder), TorchImages(folder, torch.bfloat16)

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
    torch.onnx.export(TorchImages(VIT), example, path, opset_version=17, dynamo=False, **names)
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


def our_images(spec: str, images: np.ndarray, dtype: str) -> Contestant:
    """`stream_images` in one dtype; the hidden state is encoded for its error alone."""
    batch, size = min(32, len(images)), images.shape[1]

    def encoder(layer: int) -> Callable[[int], np.ndarray]:
        read = {"layer": layer, "pooling": "cls+mean", "image_size": size}
        reader = frozen(spec, dtype, batch, **read)

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


def torch_captions(folder: Path, texts: list[str], lengths: np.ndarray) -> dict[str, Contestant]:
    """Transformers' tower, padded to the longest of each batch, as given and sorted by length."""
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


def our_captions(spec: str, texts: list[str], dtype: str) -> Contestant:
    """`stream_texts` in one dtype."""
    reader = frozen(spec, dtype, 64)

    def run(_: int) -> tuple[np.ndarray]:
        rows: list[Any] = [None] * len(texts)
        for places, encoded in reader.stream_texts(texts):
            for i, row in zip(places, encoded):
                rows[i] = row
        return (np.concatenate(rows),)

    return Contestant(run, (64,))
