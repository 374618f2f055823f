"""Which tensor of a file a module of an adapter is.

An adapter has the names of the modules in memory, with what wrapped them in front; files keep
older names for some families, and some keep several modules in one fused tensor.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from ape_jax.errors import UserError
from ape_jax.towers.files.names import Shape

# (expression of a module's name in memory, its name in files, which part of how many), since
# transformers 5 renames and splits modules as it reads them.
_QKV = {"q": ("query", 0), "k": ("key", 1), "v": ("value", 2)}
_NAMES: tuple[tuple[str, str, tuple[int, int]], ...] = (
    *(
        rule
        for letter, (word, part) in _QKV.items()
        for rule in (
            # ViT, BEiT; DINOv2.
            (
                rf"layers\.(\d+)\.attention\.{letter}_proj",
                rf"encoder.layer.\1.attention.attention.{word}",
                (0, 1),
            ),
            (
                rf"encoder\.layer\.(\d+)\.attention\.{letter}_proj",
                rf"encoder.layer.\1.attention.attention.{word}",
                (0, 1),
            ),
            # nomic_bert, jina_embeddings_v3, gte.
            (
                rf"layers\.(\d+)\.self_attn\.{letter}_proj",
                r"encoder.layers.\1.attn.Wqkv",
                (part, 3),
            ),
            (
                rf"layers\.(\d+)\.self_attn\.{letter}_proj",
                r"encoder.layers.\1.mixer.Wqkv",
                (part, 3),
            ),
            (
                rf"layers\.(\d+)\.self_attn\.{letter}_proj",
                r"encoder.layer.\1.attention.qkv_proj",
                (part, 3),
            ),
        )
    ),
    (r"layers\.(\d+)\.attention\.o_proj", r"encoder.layer.\1.attention.output.dense", (0, 1)),
    (
        r"encoder\.layer\.(\d+)\.attention\.o_proj",
        r"encoder.layer.\1.attention.output.dense",
        (0, 1),
    ),
    (r"layers\.(\d+)\.mlp\.fc1", r"encoder.layer.\1.intermediate.dense", (0, 1)),
    (r"layers\.(\d+)\.mlp\.fc2", r"encoder.layer.\1.output.dense", (0, 1)),
    (r"layers\.(\d+)\.(layernorm_(?:before|after))", r"encoder.layer.\1.\2", (0, 1)),
    (r"layers\.(\d+)\.self_attn\.o_proj", r"encoder.layers.\1.attn.out_proj", (0, 1)),
    (r"layers\.(\d+)\.self_attn\.o_proj", r"encoder.layers.\1.mixer.out_proj", (0, 1)),
    (r"layers\.(\d+)\.self_attn\.o_proj", r"encoder.layer.\1.attention.o_proj", (0, 1)),
    (r"layers\.(\d+)\.mlp\.up_proj", r"encoder.layers.\1.mlp.fc11", (0, 1)),
    (r"layers\.(\d+)\.mlp\.gate_proj", r"encoder.layers.\1.mlp.fc12", (0, 1)),
    (r"layers\.(\d+)\.mlp\.down_proj", r"encoder.layers.\1.mlp.fc2", (0, 1)),
    (r"layers\.(\d+)\.mlp\.up_proj", r"encoder.layer.\1.mlp.up_gate_proj", (0, 2)),
    (r"layers\.(\d+)\.mlp\.gate_proj", r"encoder.layer.\1.mlp.up_gate_proj", (1, 2)),
    (r"layers\.(\d+)\.mlp\.(fc[12]|down_proj)", r"encoder.layer.\1.mlp.\2", (0, 1)),
    (r"model\.layer\.(\d+)\.(.+)", r"layer.\1.\2", (0, 1)),
    (r"embeddings\.LayerNorm", r"emb_ln", (0, 1)),
)
# Heads that transformers' task classes put on a tower; an adapter may have trained them.
_HEADS = re.compile(
    r"(.+\.)?(classifier|cls_classifier|distillation_classifier|score|lm_head|cls|qa_outputs|"
    r"pre_classifier|vocab_\w+|pooler|text_projection|visual_projection|logit_(scale|bias)|head)"
    r"(\..+)?"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """A tensor of the file, or rows of it.

    Attributes:
      weight: its name.
      bias: the name of the bias beside it, which may not be there.
      part: which of `parts` equal parts of its rows.
      parts: 1 for the whole.
    """

    weight: str
    bias: str
    part: int = 0
    parts: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Targets:
    """What an adapter changes.

    Attributes:
      modules: module of the adapter -> the tensor to which its pair is added.
      tensors: tensor of the adapter -> the tensor it replaces.
    """

    modules: Mapping[str, Target]
    tensors: Mapping[str, str]


def targets(
    modules: Sequence[str], tensors: Sequence[str], shapes: Mapping[str, Shape], label: str
) -> Targets:
    """The tensors of a file that an adapter changes.

    Names may differ by what stands in front of all of them, in the adapter or in the file.

    Args:
      modules: names of modules with low-rank pairs.
      tensors: names of whole tensors in the adapter.
      shapes: of the file.
      label: of the adapter, for messages.

    Raises:
      UserError: a module that is in no way a tensor of the file.
    """
    best = Targets(modules={}, tensors={})
    for strip, put in _fronts([*modules, *tensors], shapes):
        found = Targets(
            modules={m: t for m in modules if (t := _module(m, strip, put, shapes))},
            tensors={n: t for n in tensors if (t := _tensor(n, strip, put, shapes))},
        )
        if len(found.modules) + len(found.tensors) > len(best.modules) + len(best.tensors):
            best = found
    lost = [n for n in modules if n not in best.modules] + [
        n for n in tensors if n not in best.tensors
    ]
    lost = [n for n in lost if not _HEADS.fullmatch(n)]
    if lost or not (best.modules or best.tensors):
        names = f"{len(lost)} modules of it, such as {lost[0]!r}, are" if lost else "it is"
        raise UserError(
            f"{label}: {names} in no tensor of the weights; put the weights there that the adapter "
            "was trained on, or merge it once: model.merge_and_unload().save_pretrained(NEW_DIR)"
        )
    return best


def _fronts(names: Collection[str], shapes: Mapping[str, Shape]) -> Iterator[tuple[str, str]]:
    """(what to take off the adapter's names, what to put before them), the shortest first."""
    for strip in sorted({f for n in names for f in _leads(n)}, key=len):
        for put in sorted({f for n in shapes for f in _leads(n)}, key=len):
            yield strip, put


def _leads(name: str) -> list[str]:
    """What may stand before a name: up to three of its first words, none of which counts layers."""
    parts = name.split(".")[:3]
    words = next((k for k, part in enumerate(parts) if part.isdigit() and k), len(parts))
    return ["".join(f"{p}." for p in parts[:k]) for k in range(words + 1)]


def _spellings(module: str) -> Iterator[tuple[str, int, int]]:
    yield module, 0, 1
    for pattern, name, (part, parts) in _NAMES:
        if (match := re.fullmatch(pattern, module)) is not None:
            yield match.expand(name), part, parts


def _module(module: str, strip: str, put: str, shapes: Mapping[str, Shape]) -> Target | None:
    if not module.startswith(strip):
        return None
    for name, part, parts in _spellings(module.removeprefix(strip)):
        for weight, bias in ((".weight", ".bias"), (".in_proj_weight", ".in_proj_bias"), ("", "")):
            if f"{put}{name}{weight}" in shapes:
                name = f"{put}{name}"
                return Target(weight=name + weight, bias=name + bias, part=part, parts=parts)
    return None


def _tensor(name: str, strip: str, put: str, shapes: Mapping[str, Shape]) -> str | None:
    if not name.startswith(strip):
        return None
    module, _, kind = name.removeprefix(strip).rpartition(".")
    for spelt, _, parts in _spellings(module):
        if parts == 1 and f"{put}{spelt}.{kind}" in shapes:
            return f"{put}{spelt}.{kind}"
    return None
