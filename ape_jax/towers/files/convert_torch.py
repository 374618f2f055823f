"""Pickled PyTorch checkpoints to safetensors.

`python -m ape_jax.towers.files.convert_torch IN.pt OUT` runs where torch and safetensors are, which
may be another machine: the file needs nothing else of ours (`python convert_torch.py IN.pt OUT`).
Only tensors are read, `torch.load(weights_only=True)`; what wants more than that is refused. OUT
becomes a directory with model.safetensors.

What LilT saves (github.com/codezakh/LilT, `models/clip_adjustable.py`) also gets the files with
which `ape_jax.load` takes it: sizes are read off the tensors, the rest is what its code has (heads
64 wide and norms of 1e-6 in `models/build.py`, BERT without token types in `models/med.py`, 30
tokens in `zero_shot_retrieval.py`, CLIP's mean and deviation in `dataset/__init__.py`). The largest
image tower, which has LayerScale and no position for CLS, is converted and not described.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_INNER = ("model", "state_dict")  # Where training scripts put the tensors.
_MEAN = [0.48145466, 0.4578275, 0.40821073]
_DEVIATION = [0.26862954, 0.26130258, 0.27577711]
_HEAD_WIDTH, _LONGEST = 64, 30


class Refused(Exception):
    """One sentence that says what cannot be converted."""


def convert(source: Path, out: Path) -> list[str]:
    """Converts a checkpoint.

    Args:
      source: a file that torch.save has written.
      out: a directory to make.

    Returns:
      Sentences to print.

    Raises:
      Refused: the file is no such file or holds more than tensors, or `out` is there already.
    """
    from safetensors.torch import save_file

    if out.exists():
        raise Refused(f"{out} exists; name a directory that does not")
    tensors, left = _tensors(source)
    files = describe({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    said = [f"{len(tensors)} tensors of {source} are in {out / 'model.safetensors'}"]
    if left:
        said.append(f"left out, being no tensors: {', '.join(left)}")
    if files:
        said.append(
            "the layout is LilT's: put the tokenizer of its text tower beside it "
            "(princeton-nlp/unsup-simcse-bert-base-uncased, if it is as published)"
        )
    else:
        said.append("the layout is not one that is described: write a config.json beside it")
    out.mkdir(parents=True)
    # Nothing shares memory in a file: each tensor is written whole.
    whole = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    save_file(whole, out / "model.safetensors", metadata={"format": "pt"})
    for name, content in files.items():
        (out / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return said


def _tensors(source: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors of a checkpoint by name, and what else stands beside them."""
    import torch

    if not source.is_file():
        raise Refused(f"{source} does not exist; name a file that torch.save has written")
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # What a damaged or hostile file raises has many types.
        raise Refused(_why_not(source, str(error))) from error
    inner = next((key for key in _INNER if _is_mapping(content, key)), None)
    left = [] if inner is None else sorted(str(key) for key in content if key != inner)
    content = content if inner is None else content[inner]
    if not isinstance(content, Mapping):
        raise Refused(f"{source} holds a {type(content).__name__} and no tensors by name")
    tensors = {str(k): v for k, v in content.items() if isinstance(v, torch.Tensor)}
    left += sorted(str(k) for k, v in content.items() if not isinstance(v, torch.Tensor))
    if not tensors:
        raise Refused(f"{source} holds no tensors by name")
    if all(name.startswith("module.") for name in tensors):  # Of DistributedDataParallel.
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors, left


def _is_mapping(content: Any, key: str) -> bool:
    return isinstance(content, Mapping) and isinstance(content.get(key), Mapping)


def _why_not(source: Path, said: str) -> str:
    wanted = re.search(r"Unsupported (?:global: GLOBAL|class) (\S+)", said)
    if wanted is None:
        reason = re.search(r"WeightsUnpickler error: (.+)", said)
        reason = reason[1] if reason else next(iter(said.strip().splitlines()), "no reason given")
        return f"{source} is no whole file of torch.save ({reason[:120].strip()})"
    return (
        f"{source} holds more than tensors ({wanted[1]}), and reading that can run code; where you "
        "trust the file, save its tensors alone: c = torch.load(IN, weights_only=False); "
        "torch.save(c['model'], NEW)"
    )


def describe(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The files that go beside the tensors, by name; none for a layout that is not LilT's.

    Args:
      shapes: of all tensors.
    """
    wanted = (
        "visual_encoder.cls_token",
        "visual_encoder.pos_embed",
        "visual_encoder.patch_embed.proj.weight",
        "text_encoder.embeddings.word_embeddings.weight",
        "vision_proj.weight",
        "text_proj.weight",
        "temp",
    )
    if any(name not in shapes for name in wanted):
        return {}
    if any(re.search(r"\.gamma_\d\b", name) for name in shapes):
        return {}
    vision, text = _vision(shapes), _text(shapes)
    size = vision["image_size"]
    return {
        "config.json": {"model_type": "lilt", "vision_config": vision, "text_config": text},
        "preprocessor_config.json": {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": {"height": size, "width": size},
            "resample": 3,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": _MEAN,
            "image_std": _DEVIATION,
        },
        "sentence_bert_config.json": {"max_seq_length": _LONGEST},
    }


def _vision(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    width, _, patch, _ = shapes["visual_encoder.patch_embed.proj.weight"]
    rows = shapes["visual_encoder.pos_embed"][1]
    return {
        "model_type": "vit",
        "hidden_size": width,
        "num_hidden_layers": _depth(shapes, r"visual_encoder\.blocks\.(\d+)\."),
        "num_attention_heads": max(1, width // _HEAD_WIDTH),
        "intermediate_size": shapes["visual_encoder.blocks.0.mlp.fc1.weight"][0],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "image_size": round((rows - 1) ** 0.5) * patch,
        "patch_size": patch,
        "qkv_bias": True,
    }


def _text(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    vocabulary, width = shapes["text_encoder.embeddings.word_embeddings.weight"]
    return {
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": _depth(shapes, r"text_encoder\.encoder\.layer\.(\d+)\."),
        "num_attention_heads": max(1, width // _HEAD_WIDTH),
        "intermediate_size": shapes["text_encoder.encoder.layer.0.intermediate.dense.weight"][0],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": shapes["text_encoder.embeddings.position_embeddings.weight"][0],
        "type_vocab_size": 0,
    }


def _depth(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    return len({found[1] for name in shapes if (found := re.match(pattern, name))})


def main() -> None:
    """Converts and says what was done; exit code 1 with one sentence where it cannot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, metavar="IN.pt")
    parser.add_argument("out", type=Path, metavar="OUT")
    arguments = parser.parse_args()
    try:
        print("\n".join(convert(arguments.source, arguments.out)))
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error.name} is not installed; run pip install torch safetensors")
    except (Refused, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
