"""How near each tower family comes to transformers' class of it, in float32.

python tests/benchmarks/parity.py [--only bert] [--write]

For every `model_type` a small model with random parameters (none of them zero or one) is saved,
read, and compared at every real token: texts padded on the right and on the left, images of the
native size, twice as large, and not square. Prints one JSON line a type: the largest difference by
the largest value. `--write` keeps them in docs/results/parity.json, which the documentation shows.
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import json
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import tokenizers
import torch
import transformers

from ape_jax import towers
from ape_jax.towers.family import FAMILIES

KEPT = pathlib.Path(__file__).parents[2] / "docs" / "results" / "parity.json"
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
VOCABULARY = 60
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
IMAGE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 3,
    "num_heads": 4,
}
CONVOLUTIONS = {
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 1, 2, 1],
    "image_size": 64,
}
OWN: Mapping[str, Mapping[str, Any]] = {
    "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48},
    "t5": T5,
    "mt5": T5,
    "umt5": T5,
    "convnext": {**CONVOLUTIONS, "num_stages": 4},
    "convnextv2": {**CONVOLUTIONS, "num_stages": 4},
    "dinov3_convnext": CONVOLUTIONS,
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 8,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
    "electra": {"embedding_size": 24},
    "albert": {"embedding_size": 24},
    "rembert": {"input_embedding_size": 24},
    "roberta": {"pad_token_id": 1},
    "modernbert": {"local_attention": 4},
    "mistral": {"sliding_window": 5},
    "gemma3_text": {
        "sliding_window": 5,
        "layer_types": ["sliding_attention"] * 2 + ["full_attention"],
    },
    **{name: GROUPED for name in ("qwen2", "llama", "eurobert", "gemma")},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 12},
    "altclip_text_model": {"project_dim": 32},
}
OWN = {
    **OWN,
    "mistral": {**GROUPED, **OWN["mistral"]},
    "gemma3_text": {**GROUPED, **OWN["gemma3_text"]},
}
ENCODERS = {
    "t5": transformers.T5EncoderModel,
    "mt5": transformers.MT5EncoderModel,
    "umt5": transformers.UMT5EncoderModel,
}
ALONE = {*ENCODERS, "convnext", "convnextv2", "dinov3_convnext"}
# Their class in torch takes the size alone that its position table is for.
ONE_SIZE = {"aimv2_vision_model"}
# What is compared elsewhere: their inputs are not a plain image, or their class is not plain.
ELSEWHERE = {
    "siglip2_vision_model": "tests/towers/vision/clip",
    "siglip2_text_model": "tests/towers/text/clip",
    "siglip_text_model": "tests/towers/text/clip",
    "altclip_text_model": "tests/towers/text/bert/test_kin.py",
    "vit_mae": "tests/towers/vision/test_families.py",
}


def types() -> Iterator[tuple[str, Any]]:
    """Every `model_type` of a tower of its own, with its family."""
    for family in FAMILIES.values():
        for name, section in family.model_types.items():
            if section is None and name not in ELSEWHERE:
                yield name, family


def made(model_type: str, kind: str) -> Any:
    """A small random model of transformers."""
    sizes = {**(TEXT if kind == "text" else IMAGE), **OWN.get(model_type, {})}
    if model_type in ALONE:
        sizes = {**OWN[model_type], "pad_token_id": 0} if kind == "text" else OWN[model_type]
    config = transformers.AutoConfig.for_model(model_type, **sizes)
    make = ENCODERS.get(model_type)
    if make is None:
        make = getattr(transformers, type(config).__name__.replace("Config", "Model"))
    model = make(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in filter(lambda p: p.requires_grad, model.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
            if parameter.ndim == 1:
                parameter.add_(0.5)
    return model.eval()


def texts(padding: int) -> Iterator[dict[str, np.ndarray]]:
    """Texts padded on the right, then on the left, with this id."""
    rng, lengths = np.random.default_rng(0), np.array([12, 5, 1, 9])
    ids = rng.integers(5, VOCABULARY - 1, (4, 12)).astype(np.int32)
    right = np.arange(12)[None] < lengths[:, None]
    for mask in (right, right[:, ::-1]):
        rows = np.where(mask, ids, padding)
        yield {"ids": rows.astype(np.int32), "mask": np.ascontiguousarray(mask)}


def images(size: int) -> Iterator[dict[str, np.ndarray]]:
    """Images of the native size, twice as large, and not square."""
    rng = np.random.default_rng(0)
    for height, width in ((size, size), (2 * size, 2 * size), (size, 2 * size)):
        yield {"image": rng.normal(size=(2, height, width, 3)).astype(np.float32)}


def wanted(model: Any, batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """The last hidden state by torch, where and in the type that the model is."""
    like = next(model.parameters())
    with torch.inference_mode():
        if "ids" in batch:
            inputs = {"input_ids": torch.tensor(batch["ids"]).long().to(like.device)}
            mask = torch.tensor(batch["mask"]).long().to(like.device)
            out = model(**inputs, attention_mask=mask)
        else:
            pixels = torch.tensor(batch["image"].transpose(0, 3, 1, 2)).to(like)
            known = inspect.signature(model.forward).parameters
            free = {name: True for name in ("interpolate_pos_encoding",) if name in known}
            out = model(pixels, **free)
    return out.last_hidden_state.float().cpu().numpy()


def batches(model_type: str, tower: towers.Tower) -> Iterator[dict[str, np.ndarray]]:
    """What a family is compared on; all texts have one shape, each batch of images its own."""
    if tower.kind == "text":
        found = texts(getattr(tower.config, "padding_idx", None) or 0)
    else:
        found = images(tower.config.image_size)
    yield from itertools.islice(found, 1 if model_type in ONE_SIZE else None)


def save(model: Any, folder: pathlib.Path, kind: str) -> None:
    """Writes a model's directory, that of a text tower with a tokenizer."""
    model.save_pretrained(folder)
    if kind == "text":
        write_tokenizer(folder)


def apart(want: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> float:
    """The largest difference at a real token, by the largest value.

    Args:
      want: by torch, [B, T, d] or of a ConvNet [B, d, H, W].
      tokens: [B, T', d]; of more tokens than torch gives, the last count.
      mask: [B, T'].
    """
    if want.ndim == 4:
        want = want.reshape(*want.shape[:2], -1).swapaxes(1, 2)
    got, mask = (np.asarray(x)[:, -want.shape[1] :] for x in (tokens, mask))
    return float(np.abs(got - want)[mask].max() / np.abs(want[mask]).max())


def difference(model_type: str, family: Any, folder: pathlib.Path) -> float:
    """The largest difference of all batches, by the largest value."""
    model = made(model_type, family.kind)
    save(model, folder, family.kind)
    tower, params = towers.read(folder, kind=family.kind, dtype="float32")
    largest = 0.0
    for batch in batches(model_type, tower):
        run = jax.jit(lambda p, b: tower.apply(p, b, pooling="none"))
        out = run.lower(params, batch).compile(QUICK)(params, batch)
        largest = max(largest, apart(wanted(model, batch), out.tokens, out.mask))
    return largest


def write_tokenizer(folder: pathlib.Path) -> None:
    """A tokenizer of letters, which nothing here asks for anything."""
    letters = (chr(ord("a") + i) for i in range(VOCABULARY - 2))
    words = {name: i for i, name in enumerate(("[PAD]", "[UNK]", *letters))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(words, [], unk_token="[UNK]"))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"unk_token": "[UNK]"}))


def main() -> None:
    """Compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    found = {}
    for model_type, family in types():
        if arguments.only and arguments.only != model_type:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                found[model_type] = difference(model_type, family, pathlib.Path(folder))
            except Exception as error:
                print(f"{model_type}: {type(error).__name__}: {error}"[:600], file=sys.stderr)
                continue
        print(json.dumps({"model_type": model_type, "difference": found[model_type]}), flush=True)
    if arguments.write:
        kept = json.loads(KEPT.read_text()) if KEPT.exists() and arguments.only else {}
        rounded = kept | {name: float(f"{value:.1e}") for name, value in found.items()}
        KEPT.write_text(json.dumps(rounded, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
