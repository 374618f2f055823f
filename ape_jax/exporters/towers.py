"""A tower in transformers' terms: its config there, and its tensors under their names in files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import numpy as np
from jaxtyping import PyTree

from ape_jax.align.model import Side
from ape_jax.align.tuning.selection import flatten
from ape_jax.errors import UserError
from ape_jax.towers.files import names
from ape_jax.towers.files.names import NameTable
from ape_jax.towers.text import bert, clip_text, mpnet
from ape_jax.towers.text.embed import TextConfig
from ape_jax.towers.tower import TowerConfig
from ape_jax.towers.vision import names as vision_names
from ape_jax.towers.vision.families import resize
from ape_jax.towers.vision.vit import ViTConfig

Tensors = dict[str, np.ndarray]

_TABLES: Mapping[str, NameTable] = {
    "vit": vision_names.VIT_NAMES,
    "deit": vision_names.VIT_NAMES,
    "dinov2": vision_names.DINOV2_NAMES,
    "dinov2_with_registers": vision_names.DINOV2_NAMES,
    "clip_vision_model": vision_names.CLIP_NAMES,
    "siglip_vision_model": vision_names.SIGLIP_NAMES,
    "bert": bert.BERT_NAMES,
    "roberta": bert.BERT_NAMES,
    "distilbert": bert.DISTILBERT_NAMES,
    "mpnet": mpnet.NAMES,
    "clip_text_model": clip_text.NAMES,
}
_ADAPTER = "/adapter/"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """A tower as transformers takes it.

    Attributes:
      config: content of a config.json; as deep as the tower is read.
      tensors: f32, by their names in a file of that model.
      adapters: where adapters stand and their sizes, as `modeling_ape.py` takes it; None without.
      last_norm: whether what is read has passed the tower's last norm, if it has one.
    """

    config: dict[str, Any]
    tensors: Tensors
    adapters: dict[str, Any] | None
    last_norm: bool


def export(side: Side, params: PyTree, *, keep_positions: bool = False) -> Exported:
    """One tower of a model.

    Args:
      side: the side that it is on.
      params: its parameters (`align.tuned.Tuned.merged`).
      keep_positions: leave the position table to a class that resizes it itself, as DINOv2's does.

    Raises:
      UserError: for a tower that transformers has no class for.
    """
    config = side.tower.config
    flat = flatten(params)
    adapters = {name: leaf for name, leaf in flat.items() if _ADAPTER in name}
    blocks = {name: leaf for name, leaf in flat.items() if name.startswith("blocks/")}
    depth = max((len(leaf) for name, leaf in blocks.items() if name not in adapters), default=0)
    plain = {name: np.asarray(v, np.float32) for name, v in flat.items() if name not in adapters}
    if isinstance(config, ViTConfig):
        own = keep_positions and config.family == "dinov2"
        size = config.image_size if own else side.tower.prepare.transform.size
        config, plain = _image_sized(config, plain, size)
        described = _vision(config, side.pooling)
        described["num_hidden_layers"] = depth
    else:
        described = _text(config)
        described["n_layers" if config.family == "distilbert" else "num_hidden_layers"] = depth
    table = _table(described, config)
    tensors = _tensors(table, plain, config)
    settings, more = _adapters(table, adapters)
    if described["model_type"].startswith("dinov2"):  # There in every file, and used in none.
        tensors["embeddings.mask_token"] = np.zeros((1, config.width), np.float32)
    return Exported(
        config=described,
        tensors={**tensors, **more},
        adapters=settings,
        last_norm=side.layer == -1,
    )


def _image_sized(config: ViTConfig, flat: Tensors, size: int) -> tuple[ViTConfig, Tensors]:
    """With the position table of the images that `prepare` makes.

    A tower resizes its table to its input anyway; done once, no class must know how.
    """
    new = dataclasses.replace(config, image_size=size)
    embed = {"position": flat["embed/position"]}
    position = resize({"embed": embed}, config, new)["embed"]["position"]
    if config.cls and not config.position_prefix:  # Transformers' tables have a row for CLS.
        position = np.concatenate([np.zeros_like(position[:1]), position])
    return new, {**flat, "embed/position": np.asarray(position, np.float32)}


def _tensors(table: NameTable, flat: Tensors, config: TowerConfig) -> Tensors:
    covered = {path for rule in table.rules for path in rule.paths}
    if left := set(flat) - covered:
        raise UserError(
            f"the {config.family} tower's {min(left)} has no place in transformers' class for it; "
            "export with --format jax"
        )
    params = flax.traverse_util.unflatten_dict(flat, sep="/")
    return names.to_file(table, params, heads=config.heads)


def _adapters(table: NameTable, flat: Mapping[str, Any]) -> tuple[dict[str, Any] | None, Tensors]:
    """Settings, and tensors beside those of the modules that the adapters are in."""
    if not flat:
        return None, {}
    files = {path: rule.file for rule in table.rules for path in rule.paths}
    places, tensors, before = [], {}, False
    for name, leaf in sorted(flat.items()):
        place, _, rest = name.partition(_ADAPTER)
        part, kind = rest.split("/")
        before = f"{place}/scale" in files
        file = files[f"{place}/{'scale' if before else 'kernel'}"].removesuffix(".weight")
        places.append(file.split("{i}.")[1])
        suffix = "weight" if kind == "kernel" else "bias"
        for i, array in enumerate(np.asarray(leaf, np.float32)):
            to = f"{file.replace('{i}', str(i))}.adapter.{part}.{suffix}"
            tensors[to] = np.ascontiguousarray(array.T)
    down = next(leaf for name, leaf in flat.items() if name.endswith("/down/kernel"))
    sizes = dict(zip(("blocks", "width", "hidden"), down.shape))
    return {"places": sorted(set(places)), "before": before, **sizes}, tensors


def _table(described: Mapping[str, Any], config: TowerConfig) -> NameTable:
    if getattr(config, "swiglu", False):
        return vision_names.DINOV2_SWIGLU_NAMES
    return _TABLES[described["model_type"]]


def _vision(config: ViTConfig, pooling: str) -> dict[str, Any]:
    """The config.json of a vision transformer, its depth apart."""
    sizes = {
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "hidden_act": config.activation,
        "layer_norm_eps": config.norm_eps,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
    }
    if config.family == "dinov2":
        kind = "dinov2_with_registers" if config.registers else "dinov2"
        sizes |= {"num_register_tokens": config.registers} if config.registers else {}
        mlp = {"mlp_ratio": _mlp_ratio(config), "use_swiglu_ffn": config.swiglu}
        return {"model_type": kind, **sizes, **mlp, "qkv_bias": config.qkv_bias}
    sizes["intermediate_size"] = config.mlp_width
    if config.family == "clip":
        return {"model_type": "clip_vision_model", **sizes}
    if not config.cls:  # SigLIP, and big_vision's towers of its kind.
        return {"model_type": "siglip_vision_model", **sizes, "vision_use_head": pooling == "map"}
    if pooling == "map":
        raise UserError(
            "the image tower has CLS and a pooling head, which no class of transformers has; "
            "export with --format jax"
        )
    kind = "deit" if config.distilled else "vit"
    return {"model_type": kind, **sizes, "qkv_bias": config.qkv_bias}


def _mlp_ratio(config: ViTConfig) -> int:
    """The whole number from which transformers computes this MLP width."""
    ratio = round(config.mlp_width * (1.5 if config.swiglu else 1) / config.width)
    wide = config.width * ratio
    if config.swiglu:
        wide = (int(wide * 2 / 3) + 7) // 8 * 8
    if wide != config.mlp_width:
        raise UserError(
            f"the image tower's MLP is {config.mlp_width} wide, which is no whole multiple of its "
            f"width {config.width}, as transformers wants it; export with --format jax"
        )
    return ratio


def _text(config: TextConfig) -> dict[str, Any]:
    """The config.json of a text tower, its depth apart."""
    shared = {"vocab_size": config.vocab_size, "max_position_embeddings": config.positions}
    if config.family == "distilbert":
        sizes = {"dim": config.width, "n_heads": config.heads, "hidden_dim": config.mlp_width}
        return {"model_type": "distilbert", **shared, **sizes, "activation": config.activation}
    if config.attends_padding:
        raise UserError(
            f"--format: the {config.family} tower attends to padding, which no exported tokenizer "
            "adds to a text; write --format jax"
        )
    sizes = {
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_width,
        "hidden_act": config.activation,
        "layer_norm_eps": config.norm_eps,
    }
    if config.family == "clip_text":
        kind, more = "clip_text_model", {"eos_token_id": config.eos_id}
    elif config.family == "mpnet":
        kind, more = "mpnet", {"relative_attention_num_buckets": config.buckets}
    else:
        kind, more = config.family, {"type_vocab_size": config.types}
    if config.padding_idx is not None:
        more["pad_token_id"] = config.padding_idx
    return {"model_type": kind, **shared, **sizes, **more}
