"""Every key of an experiment: its default, its check and what to write instead."""

from __future__ import annotations

from collections.abc import Mapping

from ape_jax.config import head_names, placement, tune
from ape_jax.config.fields import (
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
    is_words,
    number,
    regex,
    text,
)
from ape_jax.config.methods import METHODS


def _tower(side: str, name: Field) -> dict[str, Field]:
    return {
        f"{side}.tower": text(expects="a tower: hf:org/name, a directory, a .npz or demo:NAME"),
        f"{side}.tune": Field("frozen", tune.EXPECTS, tune.is_tune),
        f"{side}.layer": integer(-1, -1, 1000),
        f"{side}.dtype": choice("bfloat16", "float32"),
        # What parameters are kept in; 'int8' is for the blocks' kernels of a frozen tower.
        f"{side}.param_dtype": choice("float32", "bfloat16", "int8"),
        f"{side}.head.name": name,
        # Each has an effect with some heads only: `head_names`.
        f"{side}.head.depth": integer(4, 1, 64),
        f"{side}.head.width": integer(0, 0, 2**16),  # 0: the tower's.
        f"{side}.head.expansion": integer(0, 0, 64),  # 0: the head's own.
        f"{side}.head.activation": choice("gelu", "gelu_new", "quick_gelu", "relu", "silu", "tanh"),
        f"{side}.head.dropout": number(0.0, 0.0, 0.99),
        f"{side}.head.norm": choice("none", "batch"),
    }


SCHEMA: Mapping[str, Field] = {
    "seed": integer(0, 0, 2**32 - 1),
    # 'train', or a closed form: heads that are solved, whatever `head` and `train` say.
    "method": choice("train", "ridge", "ridge_text", "cca", "procrustes", "asif"),
    # What the linear heads start from when they are trained.
    "start.method": choice("none", "ridge", "ridge_text", "cca", "procrustes"),
    # A finished two-tower model whose heads, scale and bias training starts from.
    "start.model": text("", "a finished two-tower model, or '' for fresh heads"),
    # Of a closed form; what is left at its default is chosen by held-out pairs. So is `embed`, the
    # width; a start then has all of it.
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
    # Further training captions, with words left out: so many of each, and the rate.
    "augment.words": Field((), "() or (variants from 1 to 64, rate between 0 and 1)", is_words),
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
    # One matrix of all logits, or tiles of it round a ring of devices; 'auto' by size.
    "loss.impl": choice("auto", "dense", "ring"),
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
    # Devices over which a trained parameter and its optimizer state are split; 1 has them whole.
    "mesh.fsdp": integer(1, 1, 2**20),
    # Where parameters lie whose names match, whatever the two keys above say: see `placement`.
    "mesh.rules": Field((), placement.EXPECTS, placement.is_rules),
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
        "mesh.fsdp",
        "mesh.rules",
    }
)
