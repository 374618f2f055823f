"""An architecture family, as its own file declares it.

A family is one file, which states all that the rest of the package asks of it: how its config.json
reads, which module it is, what its tensors are called in files, how its inputs are prepared, what
its parameters are for tuning, and how it is exported. A line in `FAMILIES` makes it known, or, from
outside the package, `FAMILIES.register(FAMILY)`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np

from ape_jax.config.registry import Registry
from ape_jax.errors import UserError
from ape_jax.nn.layers import ACTIVATIONS
from ape_jax.towers.files import reading, sections
from ape_jax.towers.files.names import NameTable
from ape_jax.towers.files.reading import Asked
from ape_jax.towers.files.rows import ClassifierRows
from ape_jax.towers.tower import MAX_DEPTH, Kind, TowerConfig

Arrays = dict[str, np.ndarray]
NORMS, DENSE = ("norm1", "norm2"), ("attention/out", "mlp/fc2")
"""`Family.adapters` of blocks that norm first, and of those that norm last (LilT)."""


# Where such a file has `vision_config_dict`, transformers builds the tower from that alone, with
# its defaults, whatever `vision_config` beside it says.
_OLDER_SECTIONS = ("clip", "altclip", "chinese_clip", "metaclip_2")
TORCH_ROUTE = "for a frozen tower that transformers can run, write torch:hf:NAME_OR_DIR"
"""What a refusal of files that transformers reads ends with."""
_LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "layers")
"""Keys that count blocks, each of which has an entry in what is made of the config."""
_TOO_LARGE = 2**31  # No size of a tower has as much; a damaged file must not be believed.


def _shown(value: Any) -> str:
    """A value of a file, for a message."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**20 else "a huge number"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _as_it_is(params: dict[str, Any], old: Any, new: Any) -> dict[str, Any]:
    return params


@dataclass(frozen=True, kw_only=True)
class PoolerOutput:
    """The `pooler_output` of transformers' class of a tower.

    Attributes:
      pooling: of the tower's tokens, see `tower.pool`.
      dense: whether a dense layer and tanh follow, `pooler.dense` in files.
      last_bias: where none follow, the tensor of the last bias before the pooling, by its name in
        files: an export moves a constant there.
    """

    pooling: str
    dense: bool = False
    last_bias: str = ""


@dataclass(frozen=True, kw_only=True)
class TorchClass:
    """Export of a tower for its class in transformers.

    Attributes:
      describe: (config, pooling) -> the content of its config.json; UserError where the class
        cannot express it.
      table: config -> the names of its tensors in files.
      pooler: how its class pools; None for a class without `pooler_output`.
      unused: tensors that every file has and no output depends on, and how many 1s stand before
        the width in their shapes.
      resizes: whether its class resizes the position table to the image, as the tower does.
      complete: (config, parameters by path) -> those that its class has, where it has more.
      end_token: config -> the token behind which it masks a text; None where it masks none.
    """

    describe: Callable[[Any, str], dict[str, Any]]
    table: Callable[[Any], NameTable]
    pooler: PoolerOutput | None = None
    unused: Mapping[str, int] = field(default_factory=dict)
    resizes: bool = False
    complete: Callable[[Any, Arrays], Arrays] = field(default=lambda config, arrays: arrays)
    end_token: Callable[[Any], int | None] = field(default=lambda config: None)


@dataclass(frozen=True, kw_only=True)
class Family:
    """One architecture family.

    Attributes:
      name: for messages and `TowerConfig.family`.
      kind: "image" or "text".
      title: its name in the documentation.
      models: published models of it, for the documentation.
      licence: of the first of these, as its card says; "" where that was not looked up.
      model_types: value of `model_type` in config.json -> the key of the section that describes
        this tower, or None if it is the top level (`{"clip": "vision_config",
        "clip_vision_model": None}`).
      parse: (that section as `Fields`) -> the family's TowerConfig.
      module: (config=, dtype=, param_dtype=, unroll=) -> the Flax module (see tower.py for the
        methods and parameters it must have).
      tables: the ways its tensors are named in files; the one that fits a file best is used.
      prepare: (directory or None, config, options) -> what turns raw inputs into a batch; options
        are those of `towers.load` that are not None (`image_size`, `max_length`, `prefix`).
      adapt: (config, options) -> config, with the load options applied.
      resize: (params, config from the file, config asked for) -> params; for load options that
        change parameter shapes, such as another image size.
      computed: config -> tensors that files hold and the tower computes, by their paths in the
        tables: files with other numbers are refused, and an export has them.
      groups: (regular expression, group) rules for parameters that the shared table of groups
        (`align.tuning.selection.GROUPS`) does not cover; the expression matches the whole path.
      shared: names at the top of the parameter tree that every block reads, such as relative
        positions: they stay frozen where only upper blocks are trained.
      adapters: the layers of a block that layerwise adapters stand in, by their paths under
        "blocks": a norm is given the adapted input, the output of a dense layer is adapted. Empty:
        the family takes no adapters.
      classifier: the classifiers that its files may hold beside the tower; None where none is read.
      torch: its class in transformers, or why it is not exported: what follows "the X tower".
    """

    name: str
    kind: Kind
    title: str
    models: str
    model_types: Mapping[str, str | None]
    parse: Callable[[Fields], TowerConfig]
    module: Callable[..., nn.Module]
    tables: tuple[NameTable, ...]
    prepare: Callable[[Path | None, Any, Mapping[str, Any]], Callable[..., Any]]
    adapt: Callable[[Any, Mapping[str, Any]], TowerConfig]
    resize: Callable[[dict[str, Any], Any, Any], dict[str, Any]] = field(default=_as_it_is)
    computed: Callable[[Any], Arrays] = field(default=lambda config: {})
    groups: tuple[tuple[str, str], ...] = ()
    shared: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    classifier: ClassifierRows | None = None
    torch: TorchClass | str
    licence: str = ""


class Fields:
    """A section of a config.json, read with type checks: `fields.integer("hidden_size", 768)`.

    Every error names the file and the key. Defaults are those of transformers' config classes,
    because config.json files leave default values out.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        label: str,
        *,
        parent: Mapping[str, Any] | None = None,
        directory: Path | None = None,
    ):
        self.values = values if isinstance(values, Asked) else Asked(values)
        """The section, which remembers what is asked of it (see `files.reading`)."""
        self.label = label
        self.parent = parent if parent is not None else values
        """The whole config.json; differs from `values` in a two-tower file."""
        self.directory = directory
        """The directory of the config.json, None where it has none."""

    def _get(self, key: str, default: Any, types: tuple[type, ...], wanted: str) -> Any:
        value = self.values.get(key)
        if value is None:
            if default is not None and key in self.values:
                reading.assumed(f"{key!r} is null; {_shown(default)}, the usual, is taken")
            value = default
        if value is None:
            raise UserError(f"{self.label}: {key!r} is missing; write {wanted}")
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise UserError(f"{self.label}: {key!r} is {_shown(value)}; write {wanted}")
        return value

    def integer(self, key: str, default: int | None = None, *, minimum: int = 1) -> int:
        """A whole number >= `minimum`."""
        wanted = f"a whole number, {minimum} or more"
        value = self._get(key, default, (int,), wanted)
        most = MAX_DEPTH if key in _LAYERS else _TOO_LARGE - 1
        if not minimum <= value <= most:
            allowed = f"{most} or fewer" if key in _LAYERS else f"below {_TOO_LARGE}"
            wanted = wanted if value < minimum else f"a whole number, {allowed}"
            raise UserError(f"{self.label}: {key!r} is {_shown(value)}; write {wanted}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self._get(key, default, (int, float), "a number")
        if not abs(value) < _TOO_LARGE:  # Not a number is no smaller, either.
            raise UserError(f"{self.label}: {key!r} is {_shown(value)}; write a finite number")
        return float(value)

    def flag(self, key: str, default: bool | None = None) -> bool:
        """True or false."""
        return self._get(key, default, (bool,), "true or false")

    def choice(self, key: str, options: Any, default: str | None = None) -> str:
        """One of the names in `options`."""
        names = sorted(options)
        wanted = f"one of {', '.join(names)}"
        value = self._get(key, default, (str,), wanted)
        if value not in names:
            raise UserError(f"{self.label}: {key!r} is {_shown(value)}; write {wanted}")
        return value

    def activation(self, key: str, default: str | None = None) -> str:
        """A name of `nn.layers.ACTIVATIONS`; with another it would be another tower."""
        value = self._get(key, default, (str,), "the name of an activation")
        if value not in ACTIVATIONS:
            known = ", ".join(sorted(ACTIVATIONS))
            raise self.unsupported(f"{key!r} is {_shown(value)}, and {known} are supported")
        return value

    def mapping(self, key: str) -> Mapping[str, Any]:
        """An object; {} where it is absent or null."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise UserError(f"{self.label}: {key!r} is {_shown(value)}; write an object")
        return {} if value is None else value

    def error(self, sentence: str) -> UserError:
        """A UserError about this file."""
        return UserError(f"{self.label}: {sentence}")

    def unsupported(self, found: str) -> UserError:
        """A UserError about a setting that is right, and that no family here has."""
        return self.error(f"{found}; {TORCH_ROUTE}")


FAMILIES: Registry[Family] = Registry(
    "tower family",
    {
        "vit": "ape_jax.towers.vision.vit.vit:VIT",
        "deit": "ape_jax.towers.vision.vit.deit:DEIT",
        "vit_mae": "ape_jax.towers.vision.vit.mae:VIT_MAE",
        "vit_msn": "ape_jax.towers.vision.vit.msn:VIT_MSN",
        "ijepa": "ape_jax.towers.vision.vit.ijepa:IJEPA",
        "dinov3": "ape_jax.towers.vision.vit.dinov3:DINOV3",
        "radio": "ape_jax.towers.vision.vit.radio:RADIO",
        "pixio": "ape_jax.towers.vision.vit.pixio:PIXIO",
        "dinov2": "ape_jax.towers.vision.vit.dinov2:DINOV2",
        "beit": "ape_jax.towers.vision.vit.beit:BEIT",
        "tipsv2": "ape_jax.towers.vision.vit.tipsv2:TIPSV2",
        "clip": "ape_jax.towers.vision.clip.clip:CLIP",
        "blip": "ape_jax.towers.vision.vit.blip:BLIP",
        "mlcd": "ape_jax.towers.vision.clip.mlcd:MLCD",
        "aimv2": "ape_jax.towers.vision.clip.aimv2:AIMV2",
        "siglip": "ape_jax.towers.vision.clip.siglip:SIGLIP",
        "siglip2": "ape_jax.towers.vision.clip.siglip2:SIGLIP2",
        "convnext": "ape_jax.towers.vision.convnet.convnext:CONVNEXT",
        "dinov3_convnext": "ape_jax.towers.vision.convnet.dinov3:DINOV3_CONVNEXT",
        "open_clip": "ape_jax.towers.open_clip.image:OPEN_CLIP",
        "timm": "ape_jax.towers.vision.timm.vit:TIMM",
        "bert": "ape_jax.towers.text.bert.bert:BERT",
        "roberta": "ape_jax.towers.text.bert.roberta:ROBERTA",
        "electra": "ape_jax.towers.text.bert.electra:ELECTRA",
        "rembert": "ape_jax.towers.text.bert.electra:REMBERT",
        "albert": "ape_jax.towers.text.bert.albert:ALBERT",
        "deberta_v2": "ape_jax.towers.text.deberta.deberta_v2:DEBERTA_V2",
        "roformer": "ape_jax.towers.text.bert.roformer:ROFORMER",
        "megatron_bert": "ape_jax.towers.text.bert.prenorm:MEGATRON_BERT",
        "roberta_prelayernorm": "ape_jax.towers.text.bert.prenorm:ROBERTA_PRENORM",
        "xlm_roberta_xl": "ape_jax.towers.text.bert.prenorm:XLM_ROBERTA_XL",
        "distilbert": "ape_jax.towers.text.bert.distilbert:DISTILBERT",
        "mpnet": "ape_jax.towers.text.bert.mpnet:MPNET",
        "nomic_bert": "ape_jax.towers.text.rotary.rotary_bert:NOMIC_BERT",
        "gte": "ape_jax.towers.text.rotary.rotary_bert:GTE_BERT",
        "jina_embeddings_v3": "ape_jax.towers.text.rotary.rotary_bert:JINA_V3",
        "modernbert": "ape_jax.towers.text.rotary.modernbert:MODERNBERT",
        "clip_text": "ape_jax.towers.text.clip.clip_text:CLIP_TEXT",
        "t5": "ape_jax.towers.text.t5.t5:T5",
        "qwen2": "ape_jax.towers.text.decoder.qwen:QWEN2",
        "qwen3": "ape_jax.towers.text.decoder.qwen:QWEN3",
        "llama": "ape_jax.towers.text.decoder.llama:LLAMA",
        "mistral": "ape_jax.towers.text.decoder.llama:MISTRAL",
        "eurobert": "ape_jax.towers.text.decoder.llama:EUROBERT",
        "gemma": "ape_jax.towers.text.decoder.gemma:GEMMA",
        "gemma3_text": "ape_jax.towers.text.decoder.gemma:GEMMA3",
        "metaclip_2_text": "ape_jax.towers.text.clip.clip_text:METACLIP_2_TEXT",
        "altclip_text": "ape_jax.towers.text.clip.altclip_text:ALTCLIP_TEXT",
        "blip_text": "ape_jax.towers.text.clip.blip_text:BLIP_TEXT",
        "aimv2_text": "ape_jax.towers.text.clip.aimv2_text:AIMV2_TEXT",
        "siglip_text": "ape_jax.towers.text.clip.siglip_text:SIGLIP_TEXT",
    },
)


def find(
    config: Mapping[str, Any], label: str, kind: Kind | None, directory: Path | None = None
) -> tuple[Family, Fields]:
    """The family that a config.json belongs to, and its section.

    Raises:
      UserError: unknown `model_type`, a two-tower file without `kind`, or the wrong kind.
    """
    model_type: Any = config.get("model_type")
    known = FAMILIES.values() if isinstance(model_type, str) else ()
    fits = [f for f in known if model_type in f.model_types]
    if not fits:
        raise UserError(f"{label}: {_unknown(model_type, kind)}")
    of_kind = [f for f in fits if kind in (None, f.kind)]
    section = fits[0].model_types[model_type]
    if not of_kind and section is not None:
        raise UserError(
            f"{label}: of the two towers of model_type {model_type!r} only the {fits[0].kind} "
            f"tower is supported, not the {kind} tower; name another tower"
        )
    if not of_kind:
        raise UserError(
            f"{label}: model_type {model_type!r} is a tower of kind {fits[0].kind!r}, not "
            f"{kind!r}; name it in {fits[0].kind}.tower, and another in {kind}.tower"
        )
    if len(of_kind) > 1 or (kind is None and section is not None):
        raise UserError(f"{label}: model_type {model_type!r} {sections.TWO_TOWERS}")
    family = of_kind[0]
    section = family.model_types[model_type]
    if section is not None and model_type in _OLDER_SECTIONS:
        older = [k for k in ("vision_config_dict", "text_config_dict") if config.get(k) is not None]
        section = f"{section}_dict" if f"{section}_dict" in older else section
    values = config if section is None else config.get(section, {})
    if not isinstance(values, Mapping):
        raise UserError(f"{label}: {section!r} is {type(values).__name__}; write an object")
    name = label if section is None else f"{label}, section {section!r}"
    return family, Fields(values, name, parent=config, directory=directory)


def model_types(kind: Kind) -> list[str]:
    """The values of `model_type` in config.json that towers of a kind have.

    >>> "dinov2" in model_types("image"), "dinov2" in model_types("text")
    (True, False)

    Args:
      kind: of tower.
    """
    own = {t for f in FAMILIES.values() if f.kind == kind for t in f.model_types}
    return sorted(own | sections.SECTIONS.keys())


def _unknown(model_type: Any, kind: Kind | None) -> str:
    """A sentence on a `model_type` that no family has."""
    if not isinstance(model_type, str):
        return (
            f"'model_type' is {_shown(model_type)}, so this is no config.json that transformers "
            "wrote; write the type of the tower there, such as 'dinov2' or 'bert'"
        )
    kinds: tuple[Kind, ...] = ("image", "text") if kind is None else (kind,)
    known = {k: model_types(k) for k in kinds}
    close = difflib.get_close_matches(model_type, [t for ts in known.values() for t in ts], n=1)
    meant = f", did you mean {close[0]!r}?" if close else ""
    listed = "; ".join(f"{k} towers have {', '.join(types)}" for k, types in known.items())
    key = f"{kind}.tower" if kind else "the tower's key"
    return (
        f"model_type is {_shown(model_type)}, which no family here has{meant} ({listed}); "
        f"{TORCH_ROUTE} in {key}"
    )


def torch_classes() -> dict[str, TorchClass]:
    """Exports for transformers' classes by model_type, of the families that have one."""
    return {
        model_type: family.torch
        for family in FAMILIES.values()
        for model_type, section in family.model_types.items()
        if section is None and not isinstance(family.torch, str)
    }
