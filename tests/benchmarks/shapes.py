"""Towers by their shapes alone, with random weights, for encode.py.

A line in `SHAPES` is a tower: transformers' classes and what of the config is not their default.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tokenizers
import torch
import transformers

from ape_jax import towers
from ape_jax.towers.loading import example_batch

WORDS = 5000

# Name: (kind, class of the model, class of the config, settings).
SHAPES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "dinov3_s": ("image", "DINOv3ViTModel", "DINOv3ViTConfig", {"num_register_tokens": 4}),
    "modernbert_base": ("text", "ModernBertModel", "ModernBertConfig", {"vocab_size": 50_368}),
    # The table of tokens is cut: only rows that occur are read.
    "qwen3_06b": (
        "text",
        "Qwen3Model",
        "Qwen3Config",
        {
            "vocab_size": 16_384,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000},
        },
    ),
}


def directory(name: str, folder: Path) -> Path:
    """A directory as transformers saves it, with a tokenizer of words "w0", "w1", ... if of texts.

    Args:
      name: of a shape.
      folder: where directories lie.
    """
    kind, model, config, settings = SHAPES[name]
    torch.manual_seed(0)
    made = getattr(transformers, model)(getattr(transformers, config)(**settings))
    return write(made, folder / name, WORDS if kind == "text" else 0)


def write(model: torch.nn.Module, path: Path, words: int = 0) -> Path:
    """Saves a model with random weights as transformers does.

    Args:
      model: with the weights that it is made with, which are changed.
      path: a directory, made if need be.
      words: of a tokenizer beside it, "w0", "w1", ...; 0 for none.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # Zero biases and unit scales would hide what they cost.
                parameter.add_(0.02 * torch.randn(parameter.shape))
    model.save_pretrained(path)
    if words:
        vocabulary = {"[PAD]": 0, "[UNK]": 1} | {f"w{i}": i + 2 for i in range(words)}
        made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
        made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        made.save(str(path / "tokenizer.json"))
        special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "model_max_length": 512}
        special["tokenizer_class"] = "PreTrainedTokenizerFast"
        (path / "tokenizer_config.json").write_text(json.dumps(special))
    return path


def compile_seconds(path: Path, depths: tuple[int, ...] = (4, 12, 24)) -> dict[str, float]:
    """Seconds to compile the encoding of a batch, by the number of blocks."""
    config, seconds = json.loads((path / "config.json").read_text()), {}
    for depth in depths:
        # Lists of a value a block, which some configs have, are cut or repeated.
        config |= {"num_hidden_layers": depth}
        if "layer_types" in config:
            config["layer_types"] = (config["layer_types"] * depth)[:depth]
        module, own = towers.build(config)
        params = towers.abstract_params(module)
        one = example_batch(own)
        batch = jax.tree.map(lambda s: jax.ShapeDtypeStruct((8, *s.shape[1:]), s.dtype), one)

        def run(params: Any, batch: Any, module: Any = module) -> jax.Array:
            return jnp.asarray(module.apply({"params": params}, batch).tokens)

        begin = time.perf_counter()
        jax.jit(run).lower(params, batch).compile()
        seconds[f"{depth} blocks"] = round(time.perf_counter() - begin, 2)
    return seconds
