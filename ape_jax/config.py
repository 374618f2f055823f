"""The schema of an experiment: every key, its default, its check and what to write instead.

A config file is Python with `get_config(arg="") -> ml_collections.ConfigDict`; it starts from
`default()` and sets what it changes. `resolve` turns anything a user can write into either a
checked `ConfigDict` or one `UserError` that names the key.
"""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import ml_collections

from ape_jax import head_names, rules, tune
from ape_jax.errors import UserError
from ape_jax.fields import (
    Field,
    choice,
    flag,
    integer,
    is_colour,
    is_crop,
    is_methods,
    is_multipliers,
    is_randaugment,
    is_rates,
    is_settings,
    is_sizes,
    is_specs,
    is_steps,
    number,
    regex,
    text,
)
from ape_jax.methods import METHODS


def _tower(side: str, name: Field) -> dict[str, Field]:
    return {
        f"{side}.tower": text(expects="a tower: hf:org/name, a directory, a .npz or demo:NAME"),
        f"{side}.tune": Field("frozen", tune.EXPECTS, tune.is_tune),
        f"{side}.layer": integer(-1, -1, 1000),
        f"{side}.dtype": choice("bfloat16", "float32"),
        f"{side}.param_dtype": choice("float32", "bfloat16"),
        f"{side}.head.name": name,
        # Each has an effect with some heads only: `head_names`.
        f"{side}.head.depth": integer(4, 1, 64),
        f"{side}.head.width": integer(0, 0, 2**16),  # 0: the tower's.
        f"{side}.head.expansion": integer(0, 0, 64),  # 0: the head's own.
        f"{side}.head.activation": choice("gelu", "gelu_new", "quick_gelu", "relu", "silu", "tanh"),
        f"{side}.head.dropout": number(0.0, 0.0, 0.99),
    }


SCHEMA: Mapping[str, Field] = {
    "seed": integer(0, 0, 2**32 - 1),
    # 'train', or a closed form: heads that are solved, whatever `head` and `train` say.
    "method": choice("train", "ridge", "cca", "procrustes", "asif"),
    # What the linear heads start from when they are trained.
    "start.method": choice("none", "ridge", "cca", "procrustes"),
    # Of either; what is left at its default is chosen by held-out pairs. So is `embed`, the width;
    # a start then has all of it.
    "closed.l2": number(0.0, 0.0),
    "closed.power": number(-1.0, -1.0, 16.0),
    "closed.neighbours": integer(0, 0),
    # The image tower; `standardize` is the one fixed affine map that an untouched side may have.
    **_tower("image", choice(*head_names.IMAGE)),
    # 'none' keeps all tokens, for a head that pools for itself.
    "image.pooling": choice("own", "cls", "mean", "cls+mean", "map", "none"),
    "image.size": integer(0, 0, 4096),  # 0: the tower's own, as for `max_length`.
    "image.standardize": flag(True),
    # The text tower and the head on its tokens.
    **_tower(
        "text",
        Field(
            head_names.TEXT[0],
            f"one of {', '.join(map(repr, head_names.TEXT))}, or several joined by '+'",
            head_names.is_text_head,
        ),
    ),
    "text.pooling": choice("mean", "cls", "last"),
    "text.max_length": integer(0, 0, 2**16),
    "text.prefix": text("own", "a string, or 'own' for the tower's"),
    # Of modes with 'adapter' or 'lora': sizes, and which dense layers get LoRA, by their paths in
    # the tower's blocks ("blocks/attention/query", "blocks/mlp/fc1").
    "peft.adapter_reduction": integer(4, 1, 4096),
    "peft.lora_rank": integer(8, 1, 4096),
    "peft.lora_alpha": number(16.0, 0.0, 1e6),
    "peft.lora_targets": regex(".*/(query|value)"),
    # The joint width; 0 is the image feature's, which an identity head needs.
    "embed": integer(0, 0, 2**16),
    "data.pairs": text(expects="pairs: a file, tfds:NAME:SPLIT or demo:NAME:SPLIT"),
    # So many of the training pairs, a random sample keyed by `seed`; a smaller one is part of it.
    "data.sample": integer(0, 0),
    "data.eval": Field({}, "a mapping from names to pairs, {'test': 'pairs.jsonl'}", is_specs),
    "data.on_error": choice("error", "skip"),
    "data.background": Field((255, 255, 255), "three integers from 0 to 255", is_colour),
    "data.workers": integer(2, 1, 256),
    # () turns an augmentation off.
    "augment.crop": Field((), "() or two areas, 0 < low <= high <= 1", is_crop),
    "augment.flip": flag(False),
    "augment.randaugment": Field((), "() or (operations, magnitude up to 10)", is_randaugment),
    # How often a frozen image is encoded: 0 anew in every step, 1 clean, K augmented views.
    "cache.views": integer(1, 0, 1000),
    # Keys the views, apart from `seed`, so that runs share them.
    "cache.seed": integer(0, 0, 2**32 - 1),
    # Whether captions of a frozen text tower are encoded once, or anew in every step.
    "cache.text": flag(True),
    "cache.dtype": choice("bfloat16", "float32"),
    # '' is `features` in the cache folder, 'none' keeps features in memory only.
    "cache.dir": text("", "a directory, '' for the cache folder's own, or 'none'"),
    "cache.missing": choice("encode", "error"),
    # Where features live in training; 'auto' is the device where they fit.
    "cache.place": choice("auto", "device", "host"),
    # Augmentation of cached features: Beta's alpha of the mixup, standard deviation, rate.
    "latent.mixup": number(0.0, 0.0, 100.0),
    "latent.noise": number(0.0, 0.0, 100.0),
    "latent.dropout": number(0.0, 0.0, 0.99),
    "train.batch": integer(512, 2, 2**26),
    # Pairs whose activations are kept at a time (GradCache): the same gradient. 0: the whole batch.
    "train.micro_batch": integer(0, 0, 2**26),
    # What of a trained tower is computed again in the backward pass: nothing, all of each block, or
    # all but its matrix products.
    "train.remat": choice("none", "blocks", "all_but_products"),
    "train.steps": integer(1000, 1),
    "train.log_every": integer(50, 1),
    "train.steps_per_call": integer(0, 0, 10_000),  # 0: as many as serve.
    "train.eval_every": integer(0, 0),  # 0: at the end only, as for checkpoints.
    "train.checkpoint_every": integer(0, 0),
    "train.keep": integer(2, 1),
    "eval.batch": integer(64, 1, 2**16),
    "loss.name": choice("softmax", "sigmoid"),
    # Which pairs are not negatives of each other: those that share an image, or a caption too.
    "loss.same": choice("image", "image+caption", "none"),
    # 'local' is LilT's: a batch in `local_groups` parts, of which none sees another.
    "loss.negatives": choice("global", "local"),
    "loss.local_groups": integer(0, 0, 2**20),
    "loss.smoothing": number(0.0, 0.0, 0.99),  # Of softmax's labels.
    "loss.normalize": choice("batch", "square"),  # What sigmoid's sum is divided by.
    "loss.positives": integer(1, 1, 64),  # Captions an image and step.
    "loss.scale": number(1 / 0.07, 1e-3, 1e3),
    "loss.scale_max": number(100.0, 1e-3, 1e4),
    "loss.learn_scale": flag(True),
    "loss.bias": number(0.0, -100.0, 100.0),
    "optim.name": choice("adamw", "adam", "lion", "sgd"),
    "optim.lr": number(1e-3, 0.0, 10.0),
    "optim.lr_end": number(0.0, 0.0, 1.0),  # As a share of `lr`.
    "optim.schedule": choice("cosine", "constant", "linear", "rsqrt"),
    "optim.warmup": integer(0, 0),
    "optim.b1": number(0.9, 0.0, 0.9999),
    "optim.b2": number(0.999, 0.0, 0.999999),
    "optim.weight_decay": number(0.0, 0.0, 10.0),
    "optim.decay_on": regex(".*/kernel"),
    "optim.clip": number(1.0, 0.0),  # Global norm; 0 turns clipping off.
    "optim.ema": number(0.0, 0.0, 0.999999),  # Decay of the moving average that is evaluated.
    "optim.lr_mults": Field((), "pairs (regular expression, factor >= 0)", is_multipliers),
    # What `ape_jax.study` compares, and over how many seeds from `seed` on.
    "study.methods": Field((), f"names out of {', '.join(map(repr, METHODS))}", is_methods),
    "study.seeds": integer(3, 1, 1000),
    # Numbers of training pairs, samples as of `data.sample`; () is all pairs, as is a 0 among them.
    "study.sizes": Field((), "different numbers of pairs, 0 for all", is_sizes),
    # Steps of sizes that want others than `train.steps`; the warm-up keeps its share.
    "study.steps": Field((), "pairs (number of pairs, steps)", is_steps),
    # Whatever else a method wants.
    "study.set": Field((), "triples (method, config key, value)", is_settings),
    # Learning rates of methods that want another than `optim.lr`.
    "study.lrs": Field((), "pairs (method, learning rate)", is_rates),
    # Frozen parameters of at least this many elements are sharded over the mesh.
    "mesh.shard_min_size": integer(2**20, 1),
}

# What may change between two starts of one work directory without changing the result.
HARMLESS = frozenset(
    {
        "train.log_every",
        "train.keep",
        "train.steps_per_call",
        "data.workers",
        "cache.dir",
        "cache.missing",
        "cache.place",
    }
)


def default() -> ml_collections.ConfigDict:
    """Every key of the schema at its default, locked: a key outside the schema cannot be set."""
    defaults = {key: field.default for key, field in SCHEMA.items()}
    return ml_collections.ConfigDict(unflatten(defaults)).lock()


def parse_arg(arg: str | None, **defaults: Any) -> ml_collections.ConfigDict:
    """Reads the part after the colon of `--config file.py:key=value,flag`.

    Args:
      arg: `"image=demo:vit_s14,runlocal"`; a bare name means True.
      **defaults: the names that the file knows, with their defaults, which set the types.

    Raises:
      UserError: for a name that the file does not know, or a value of another type.
    """
    values = dict(defaults)
    for part in filter(None, (arg or "").split(",")):
        name, equals, value = part.partition("=")
        if name not in defaults:
            raise UserError(
                f"--config: the file takes no argument {name!r}{_nearest(name, defaults)}"
            )
        like = defaults[name]
        field = Field(like, f"a value like {like!r}", partial(_is_like, like))
        what = f"--config argument {name!r}"
        values[name] = _parse(what, value if equals else "True", field)
        if not field.check(values[name]):
            raise UserError(f"{what}: expected {field.expects}, found {value!r}")
    return ml_collections.ConfigDict(values)


def override(config: ml_collections.ConfigDict, assignments: Mapping[str, str]) -> None:
    """Applies `--config.key=value` texts in place.

    Raises:
      UserError: for a key outside the schema or a text that is no value of the key's type.
    """
    for key, value in assignments.items():
        group, _, name = key.rpartition(".")
        if group == "data.eval" and name:
            config.data.eval.unlock()
            config.data.eval[name] = value
            continue
        if key not in SCHEMA:
            raise UserError(f"config.{key}: no such key{_nearest(key, SCHEMA)}")
        field = SCHEMA[key]
        parsed = _normalise(_parse(f"config.{key}", value, field), field.default)
        if not field.check(parsed):
            raise UserError(f"config.{key}: expected {field.expects}, found {value!r}")
        node = config[group] if group else config
        with node.ignore_type():
            node[name] = parsed


def resolve(config: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """Checks every key and value and returns a fresh, frozen-in-shape config with all keys.

    Raises:
      UserError: naming the first key that is unknown, missing or out of range.
    """
    flat = flatten(config)
    for key in flat:
        if key not in SCHEMA:
            raise UserError(f"config.{key}: no such key{_nearest(key, SCHEMA)}")
    resolved = default()
    for key, field in SCHEMA.items():
        value = _normalise(flat.get(key, field.default), field.default)
        if not field.check(value):
            raise UserError(f"config.{key}: expected {field.expects}, found {value!r}")
        *groups, name = key.split(".")
        node = resolved
        for group in groups:
            node = node[group]
        with node.ignore_type(), node.unlocked():
            node[name] = ml_collections.ConfigDict(value) if isinstance(value, Mapping) else value
    rules.check(resolved, {key: field.default for key, field in SCHEMA.items()})
    return resolved.lock()


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"train.batch": 512, ...}`; a mapping that is itself a value (`data.eval`) stays whole."""
    if isinstance(config, ml_collections.ConfigDict):
        config = config.to_dict()
    flat: dict[str, Any] = {}
    for name, value in config.items():
        key = prefix + name
        if isinstance(value, Mapping) and key not in SCHEMA:
            flat.update(flatten(value, key + "."))
        else:
            flat[key] = dict(value) if isinstance(value, Mapping) else value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested form of what `flatten` gives."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *groups, name = key.split(".")
        node = nested
        for group in groups:
            node = node.setdefault(group, {})
        node[name] = value
    return nested


def _parse(what: str, written: str, field: Field) -> Any:
    """`written` as a value of the type of the field's default; its range is checked later."""
    if isinstance(field.default, str):
        return written
    try:
        return ast.literal_eval(written)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise UserError(f"{what}: expected {field.expects}, found {written!r}") from None


def _is_like(like: Any, value: Any) -> bool:
    return isinstance(value, type(like)) and isinstance(value, bool) == isinstance(like, bool)


def _normalise(value: Any, like: Any) -> Any:
    """Lists read as tuples and whole numbers as floats where the key holds those."""
    if isinstance(like, tuple) and isinstance(value, list | tuple):
        return tuple(_normalise(v, ()) if isinstance(v, list) else v for v in value)
    if isinstance(like, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**53 else math.inf
    return value


def _nearest(key: str, known: Mapping[str, Any]) -> str:
    same = [k for k in known if k.rpartition(".")[2] == key.rpartition(".")[2]][:1]
    # `depth` is `text.head.depth` rather than any other short word.
    close = ("." not in key and same) or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    close = close or same
    return f"; did you mean {close[0]!r}?" if close else f"; valid ones: {', '.join(known)}"
