"""Rules that tie keys of a config together, each with the sentence that says how to get out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ape_jax.config import tune
from ape_jax.config.automatic import AUTO
from ape_jax.config.components import HEADS, LOSSES, declared_keys, heads_of, text_parts
from ape_jax.config.experiment import Config
from ape_jax.config.outside import is_outside, is_precomputed, is_torch
from ape_jax.config.rules import classifier, folds, hard, languages, outside, start, terms, unpaired
from ape_jax.errors import UserError

HELD_OUT = "held-out"
"""Name of the evaluation on what `data.split` holds out."""


def check(config: Config, defaults: Mapping[str, Any]) -> None:
    """Checks a config whose keys are right each by itself.

    Args:
      config: every key set.
      defaults: the schema's, flat.

    Raises:
      UserError: naming a key that does not go with another.
    """
    _check_required(config)
    _check_kept(config)
    outside.check(config)
    start.check(config)
    _check_model(config)
    _check_features(config)
    _check_training(config)
    terms.check(config)
    unpaired.check(config)
    classifier.check(config)
    hard.check(config)
    folds.check(config)
    languages.check(config)
    _check_no_effect(config, defaults)


def _check_required(config: Config) -> None:
    for side in ("image", "text"):
        if not config.side(side).tower:
            raise UserError(
                f"config.{side}.tower: expected hf:org/name, demo:NAME or a directory, found none"
            )
    if not config.data.pairs:
        raise UserError("config.data.pairs: expected a pairs file, found none")


def _check_kept(config: Config) -> None:
    if config.data.split and HELD_OUT in config.data.eval:
        raise UserError(
            f"config.data.eval: {HELD_OUT!r} is what data.split calls the images that it holds "
            "out; write another name"
        )
    if config.data.split and is_precomputed(config.data.pairs):
        raise UserError(
            "config.data.split: precomputed vectors are not held out; write 0 and name a second "
            "file in data.eval"
        )
    if config.eval.keep == "best" and not (config.data.split or config.data.eval):
        raise UserError(
            "config.eval.keep: 'best' needs pairs that it is chosen by; write data.split=0.1 to "
            "hold some out, or name them in data.eval"
        )
    if config.eval.keep == "best" and config.eval.ranks:
        raise UserError(
            "config.eval.ranks: ranks are kept of the last evaluation; write eval.keep='last', "
            "found 'best'"
        )


def _check_model(config: Config) -> None:
    if config.image.tune != "frozen" and config.image.standardize:
        raise UserError(
            "config.image.standardize: statistics are fixed before training, so they need "
            "image.tune='frozen'; set it to False"
        )
    head = HEADS[config.image.head.name]
    if head.keeps_width and config.embed and config.trains:
        raise UserError(
            f"config.embed: with image.head.name={head.name!r} the joint width is the image "
            f"feature's; found {config.embed}, write 0 or use image.head.name='linear'"
        )
    _check_image_tokens(config)
    _check_text_head(config)
    if config.loss.negatives == "local" and config.loss.local_groups < 2:
        raise UserError(
            "config.loss.local_groups: with loss.negatives='local' write how many parts a batch "
            f"has (in LilT, GPUs), 2 or more; found {config.loss.local_groups}"
        )
    if config.loss.scale > config.loss.scale_max:
        raise UserError(
            f"config.loss.scale: expected at most loss.scale_max ({config.loss.scale_max:g}), "
            f"found {config.loss.scale:g}"
        )


def _check_image_tokens(config: Config) -> None:
    """All tokens of an image go with the heads that take them."""
    takes = HEADS[config.image.head.name].pooled is None
    if takes != (config.image.pooling == "none"):
        those = " or ".join(repr(n) for n, head in heads_of("image").items() if not head.pooled)
        raise UserError(
            f"config.image.pooling: 'none' and image.head.name={those} go together; found "
            f"{config.image.pooling!r} and {config.image.head.name!r}"
        )
    if takes and (config.image.standardize or not config.trains):
        raise UserError(
            f"config.image.head.name: {config.image.head.name!r} has a norm of its own and is "
            "trained; write image.standardize=False and method='train'"
        )


def _check_text_head(config: Config) -> None:
    for place, (name, head) in enumerate(text_parts(config.text.head.name).items()):
        if place and not head.starts_at_zero:
            raise UserError(
                f"config.text.head.name: {name!r} cannot start at zero, so it can only be the "
                f"first part of a sum; found {config.text.head.name!r}"
            )
        if "ids" in head.needs and is_outside(config.text.tower):
            raise UserError(
                f"config.text.head.name: {name!r} needs token ids, and {config.text.tower!r} gives "
                f"vectors without any; leave it out of {config.text.head.name!r}"
            )


def _check_features(config: Config) -> None:
    """What is encoded once, and what can be done with it."""
    augmented = config.augment.crop or config.augment.flip or config.augment.randaugment
    frontier = {side: tune.parse(config.side(side).tune).frontier for side in ("image", "text")}
    frozen = {side: found == "output" for side, found in frontier.items()}
    if augmented and config.cache.views == 1 and frontier["image"] != "input":
        raise UserError(
            "config.cache.views: 1 encodes each image once and clean, but augment asks for more; "
            "write 0 (anew in every step) or the number of views"
        )
    if config.cache.views > 1 and not augmented:
        raise UserError(
            f"config.cache.views: {config.cache.views} views without augmentation are all the "
            "same; write 1 or set augment.crop, augment.flip or augment.randaugment"
        )
    if config.augment.words and is_precomputed(config.text.tower):
        raise UserError(
            f"config.augment.words: {config.text.tower!r} gives vectors, which have no words to "
            "leave out; write ()"
        )
    for side, found in frontier.items():
        if config.cache.place == "device" and found == "hidden":
            raise UserError(
                f"config.cache.place: with {side}.tune={config.side(side).tune!r} every token of a "
                "hidden state is kept, which is streamed from the host; write 'auto' or 'host'"
            )
    cached = frozen["image"] and frozen["text"] and config.cache.views and config.cache.text
    if config.cache.place == "device" and not cached:
        raise UserError(
            "config.cache.place: 'device' needs both sides encoded once: tune='frozen', "
            "cache.views of at least 1 and cache.text=True; write 'auto'"
        )
    own = all(is_precomputed(config.side(side).tower) for side in frontier)
    if config.cache.place == "disk" and config.cache.dir == "none" and not own:
        raise UserError(
            "config.cache.place: 'disk' reads features from files, and cache.dir='none' keeps them "
            "in memory; name a directory or write 'auto'"
        )
    if config.latent.mixup and not (frozen["image"] and frozen["text"]):
        raise UserError(
            "config.latent.mixup: both sides are mixed, so both need tune='frozen'; write 0"
        )
    for key in ("noise", "dropout"):
        if config.latent[key] and not any(frozen.values()):
            raise UserError(
                f"config.latent.{key}: it changes the features of a frozen tower and no tower is "
                "frozen; write 0"
            )


def _check_training(config: Config) -> None:
    for side in ("image", "text"):
        if config.side(side).tune != "frozen" and config.side(side).param_dtype == "int8":
            raise UserError(
                f"config.{side}.param_dtype: 'int8' is for frozen towers, and {side}.tune is "
                f"{config.side(side).tune!r}; write 'float32' or tune='frozen'"
            )
        if config.side(side).tune == "full" and config.side(side).param_dtype != "float32":
            raise UserError(
                f"config.{side}.param_dtype: with tune='full' the optimizer needs parameters in "
                f"'float32' (products are in {side}.dtype), found {config.side(side).param_dtype!r}"
            )
    if config.optim.name == "adam" and config.optim.weight_decay:
        raise UserError(
            "config.optim.weight_decay: adam has none; write 0 or use optim.name='adamw'"
        )
    micro = config.train.micro_batch
    if micro and config.train.batch % micro and config.train.batch != AUTO:
        raise UserError(
            f"config.train.micro_batch: {micro} does not divide train.batch "
            f"({config.train.batch}); write a divisor, or 0 for the whole batch"
        )
    if micro not in (0, config.train.batch):
        for side in ("image", "text"):
            if config.side(side).head.norm == "batch":
                raise UserError(
                    f"config.{side}.head.norm: 'batch' is over a whole batch, and "
                    f"train.micro_batch cuts it; write train.micro_batch=0 or norm='none'"
                )
    if config.optim.warmup >= config.train.steps != AUTO:
        raise UserError(
            f"config.optim.warmup: expected less than train.steps ({config.train.steps}), "
            f"found {config.optim.warmup}"
        )


def _check_no_effect(config: Config, defaults: Mapping[str, Any]) -> None:
    """A key that was set and changes nothing is a misunderstanding, not a choice."""
    unused = {}
    for side in ("image", "text"):
        head = config.side(side).head
        why = f"{side}.head.name={head.name!r}"
        used = declared_keys(text_parts(head.name).values())
        for key in sorted(set(head.declared) - set(used)):
            unused[f"{side}.head.{key}"] = (head[key], why)
    pooled = any(part.pooled for part in text_parts(config.text.head.name).values())
    # Solved heads pool, too; heads on tokens end in their mean.
    pooled = pooled or config.text.pooling == "mean"
    if not pooled and config.trains and not config.structure.weight:
        unused["text.pooling"] = (config.text.pooling, why)
    if config.image.tune == config.text.tune == "frozen":
        unused["train.remat"] = (config.train.remat, "image.tune=text.tune='frozen'")
    for key in sorted(set(config.loss.declared) - set(LOSSES[config.loss.name].keys)):
        unused[f"loss.{key}"] = (config.loss[key], f"loss.name={config.loss.name!r}")
    if config.start.model and config.loss.learn_scale:
        unused["loss.scale"] = (config.loss.scale, f"start.model={config.start.model!r}")
    if config.loss.negatives == "global":
        unused["loss.local_groups"] = (config.loss.local_groups, "loss.negatives='global'")
    if tune.parse(config.text.tune).frontier == "input":
        unused["cache.text"] = (config.cache.text, f"text.tune={config.text.tune!r}")
    if not config.trains:
        for key in ("train.folds", "eval.keep", "loss.dims", "loss.hard"):
            group, _, name = key.partition(".")
            unused[key] = (getattr(config, group)[name], f"method={config.method!r}")
    form = config.closed_form
    why = f"method={config.method!r} and start.method={config.start.method!r}"
    for key in sorted(set(config.closed.declared) - set(form.keys if form else ())):
        unused[f"closed.{key}"] = (config.closed[key], why)
    if is_precomputed(config.text.tower):
        for key in ("max_length", "prefix"):
            unused[f"text.{key}"] = (config.text[key], f"text.tower={config.text.tower!r}")
        unused["cache.text"] = (config.cache.text, f"text.tower={config.text.tower!r}")
    for side in ("image", "text"):
        if not is_torch(config.side(side).tower):
            why = f"{side}.tower={config.side(side).tower!r}, which torch does not run"
            for key in ("trust_remote_code", "torch_device"):
                unused[f"{side}.{key}"] = (config.side(side)[key], why)
    unused |= _unused_peft(config) | terms.unused(config)
    unused |= unpaired.unused(config) | classifier.unused(config)
    for key, (value, reason) in unused.items():
        if value != defaults[key]:
            raise UserError(f"config.{key}: {value!r} has no effect with {reason}; leave it out")


def _unused_peft(config: Config) -> dict[str, tuple[Any, str]]:
    modes = [config.side(side).tune for side in ("image", "text")]
    parts = frozenset[str]().union(*(tune.parse(mode).parts for mode in modes))
    why = "image.tune={!r} and text.tune={!r}".format(*modes)
    keys = {"adapter": ("adapter_reduction",), "lora": ("lora_rank", "lora_alpha", "lora_targets")}
    return {
        f"peft.{key}": (config.peft[key], why)
        for part, names in keys.items()
        if part not in parts
        for key in names
    }
