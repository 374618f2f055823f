"""An image-text model of two pretrained towers: transformers' own classes, and a head on each.

    model = AutoModel.from_pretrained(DIR, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(DIR, trust_remote_code=True)
    out = model(**processor(images=images, text=texts, return_tensors="pt", padding=True))
    out.image_embeds @ out.text_embeds.T    # cosines; out.logits_per_image is these, scaled

This file needs torch and transformers alone. What a directory of it holds is said by its
config.json: which towers, how they are pooled, which heads, where adapters stand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForTextEncoding,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.activations import ACT2FN
from transformers.configuration_utils import SubConfigSpec
from transformers.utils import ModelOutput

from .checksums_ape import check

_LAST_NORMS = (
    "norm",
    "rms_norm",
    "layernorm",
    "post_layernorm",
    "final_layer_norm",
    "LayerNorm",
    "encoder.LayerNorm",
    "encoder.ln",
    "encoder.final_layer_norm",
    "norm",
)
# Of these the last norm is not in what the tower gives.
_NORM_POOLED = ("clip_vision_model", "mlcd_vision_model")
# Of these AutoModel makes a class that has the decoder, too.
_ENCODERS = ("t5", "umt5")
_NORM_EPS = 1e-5  # Of the norms in heads, but for the transformer's.


class ApeConfig(PreTrainedConfig):
    """What the model is made of.

    Attributes:
      vision_config, text_config: of the towers, as transformers' own classes have them; as deep as
        they are read.
      embed: the width of the embeddings; where heads give more, it is that of a prefix of them.
      image: `pooling`, `prefix_tokens`, `cls_tokens`, `cls_mean`, `last_norm`, `norm_twice`,
        `layers`, `standardize`, `adapters` and `heads`. Of several `layers` the pooled vectors are
        joined; null is the tower's output.
      text: `end_token`, `last_norm`, `layers`, `adapters` and `heads`; each head may have a
        `pooling`. Of several `layers` the tokens are joined, as above.
      logit_bias: whether the logits have a bias (a sigmoid loss's).
      weights: how many fixed weights stand behind both heads, 0 for none.
      languages: rows and width of the table of language means that are taken off tokens, () for
        none; the tokenizer gives the row of each text as `language`.
    """

    model_type = "ape"
    attribute_map = {"projection_dim": "embed"}  # noqa: RUF012 (sentence-transformers asks for it.)
    sub_configs_defaults = {  # noqa: RUF012
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="dinov2"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert"),
    }

    vision_config: PreTrainedConfig | dict | None = None
    text_config: PreTrainedConfig | dict | None = None
    embed: int = 0
    image: dict | None = None
    text: dict | None = None
    logit_bias: bool = False
    weights: int = 0
    languages: list | tuple = ()


class _Identity(nn.Module):
    """No head."""

    def forward(self, x: Tensor, mean: Callable[[Tensor], Tensor], **_: Any) -> Tensor:
        return mean(x)


class _Linear(nn.Module):
    """One linear map."""

    def __init__(self, width: int, embed: int):
        super().__init__()
        self.projection = nn.Linear(width, embed)

    def forward(self, x: Tensor, mean: Callable[[Tensor], Tensor], **_: Any) -> Tensor:
        return self.projection(mean(x))


class _MLP(nn.Module):
    """An MLP whose last layer acts after the mean over tokens, with which it commutes."""

    def __init__(self, width: int, embed: int, depth: int, hidden: int, activation: str):
        super().__init__()
        sizes = [width, *[hidden] * (depth - 1), embed]
        for i, (rows, columns) in enumerate(pairwise(sizes)):
            setattr(self, f"dense_{i}", nn.Linear(rows, columns))
        self.depth, self.activation = depth, ACT2FN[activation]

    def forward(self, x: Tensor, mean: Callable[[Tensor], Tensor], **_: Any) -> Tensor:
        for i in range(self.depth - 1):
            x = self.activation(getattr(self, f"dense_{i}")(x))
        return getattr(self, f"dense_{self.depth - 1}")(mean(x))


class _ResidualMLP(nn.Module):
    """FuseMix's head (arXiv 2312.10144)."""

    def __init__(self, width: int, embed: int, depth: int, hidden: int, activation: str):
        super().__init__()
        for i in range(depth):
            setattr(self, f"block_{i}_norm", nn.LayerNorm(width, eps=_NORM_EPS))
            setattr(self, f"block_{i}_fc1", nn.Linear(width, hidden))
            setattr(self, f"block_{i}_fc2", nn.Linear(hidden, width))
        self.norm = nn.LayerNorm(width, eps=_NORM_EPS)
        self.projection = nn.Linear(width, embed)
        self.depth, self.activation = depth, ACT2FN[activation]

    def forward(self, x: Tensor, mean: Callable[[Tensor], Tensor], **_: Any) -> Tensor:
        x = mean(x)
        for i in range(self.depth):
            norm, fc1, fc2 = (getattr(self, f"block_{i}_{n}") for n in ("norm", "fc1", "fc2"))
            x = x + fc2(self.activation(fc1(norm(x))))
        return self.projection(self.norm(x))


class _StarMLP(nn.Module):
    """SAIL's head (arXiv 2412.04616)."""

    def __init__(self, width: int, embed: int, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=_NORM_EPS)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.projection = nn.Linear(hidden, embed)

    def forward(self, x: Tensor, mean: Callable[[Tensor], Tensor], **_: Any) -> Tensor:
        x = self.norm(mean(x))
        return self.projection(F.relu6(self.fc1(x)) * self.fc2(x))


class _Projector(nn.Module):
    """The mean over tokens of `linear(y) + fc2(gelu(fc1(y)))`, `y = norm(x)`."""

    def __init__(self, width: int, embed: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=_NORM_EPS)
        self.fc1, self.linear = nn.Linear(width, embed), nn.Linear(width, embed)
        self.fc2 = nn.Linear(embed, embed)

    def forward(self, x: Tensor, mean: Callable[[Tensor], Tensor]) -> Tensor:
        x = self.norm(x)
        return self.linear(mean(x)) + self.fc2(mean(F.gelu(self.fc1(x))))


class _TokenPool(nn.Module):
    """Freeze-Align's text side (arXiv 2409.19425)."""

    def __init__(self, width: int, embed: int, gate: bool):
        super().__init__()
        self.tokens = _Projector(width, embed)
        self.projection, self.fc = nn.Linear(embed, embed), nn.Linear(embed, embed)
        self.norm = nn.LayerNorm(embed, eps=_NORM_EPS)
        self.gate = nn.Parameter(torch.zeros(embed)) if gate else None

    def forward(self, x: Tensor, mean: Callable[[Tensor], Tensor], **_: Any) -> Tensor:
        projected = self.projection(self.tokens(x, mean))
        x = self.norm(projected + self.fc(F.gelu(projected)))
        return x if self.gate is None else x * self.gate


class _ImageTokenPool(nn.Module):
    """Freeze-Align's image side: CLS and the mean patch, each through a projector."""

    def __init__(self, width: int, embed: int, prefix_tokens: int):
        super().__init__()
        self.patches, self.cls = _Projector(width, embed), _Projector(width, embed)
        self.prefix_tokens = prefix_tokens

    def forward(self, x: Tensor, mean: Callable[[Tensor], Tensor], **_: Any) -> Tensor:
        def mean_token(y: Tensor) -> Tensor:
            return y.mean(dim=1)

        patches = self.patches(x[:, self.prefix_tokens :], mean_token)
        return patches + self.cls(x[:, :1], mean_token)


class _AttentionPool(nn.Module):
    """Learned queries that attend over the tokens of a caption or an image."""

    def __init__(self, width: int, embed: int, queries: int, heads: int):
        super().__init__()
        self.attention = nn.Module()
        self.attention.queries = nn.Parameter(torch.zeros(queries, heads, width // heads))
        self.attention.projection = nn.Linear(queries * width, embed)

    def forward(self, x: Tensor, mask: Tensor | None = None, **_: Any) -> Tensor:
        queries = self.attention.queries
        y = F.layer_norm(x, x.shape[-1:], eps=_NORM_EPS).unflatten(-1, queries.shape[1:])
        scores = torch.einsum("bthk,qhk->bqht", y, queries) * queries.shape[-1] ** -0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None], float("-inf"))
        found = torch.einsum("bqht,bthk->bqhk", scores.softmax(dim=-1), y)
        return self.attention.projection(found.flatten(1))


class _Layer(nn.Module):
    """A transformer layer that norms first."""

    def __init__(self, width: int, hidden: int, activation: str, heads: int, eps: float):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=eps) for _ in range(2))
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.heads, self.activation = heads, ACT2FN[activation]

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        y = self.norm1(x)
        query, key, value = (split(dense(y)) for dense in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        x = x + self.out(y.transpose(1, 2).flatten(-2))
        return x + self.fc2(self.activation(self.fc1(self.norm2(x))))


class _Transformer(nn.Module):
    """Transformer layers on the tokens, a norm, the mean, a linear map."""

    def __init__(self, width: int, embed: int, depth: int, eps: float, **layer: Any):
        super().__init__()
        for i in range(depth):
            setattr(self, f"layer_{i}", _Layer(width, eps=eps, **layer))
        self.norm = nn.LayerNorm(width, eps=eps)
        self.projection = nn.Linear(width, embed)
        self.depth = depth

    def forward(
        self, x: Tensor, mean: Callable[[Tensor], Tensor], mask: Tensor, **_: Any
    ) -> Tensor:
        for i in range(self.depth):
            x = getattr(self, f"layer_{i}")(x, mask)
        return self.projection(mean(self.norm(x)))


class _Lookup(nn.Module):
    """A learned vector a token id, averaged."""

    def __init__(self, embed: int, vocabulary: int):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(vocabulary, embed))

    def forward(self, x: Tensor, mean: Callable[[Tensor], Tensor], ids: Tensor, **_: Any) -> Tensor:
        return mean(self.table[ids])


_HEADS = {
    "identity": _Identity,
    "linear": _Linear,
    "pooled_mlp": _MLP,
    "token_mlp": _MLP,
    "residual_mlp": _ResidualMLP,
    "star_mlp": _StarMLP,
    "token_pool_mlp": _TokenPool,
    "image_token_pool_mlp": _ImageTokenPool,
    "attention_pool": _AttentionPool,
    "transformer": _Transformer,
    "lookup": _Lookup,
}


class _Adapter(nn.Module):
    """`x + up(gelu(down(x)))`."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.down, self.up = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(F.gelu(self.down(x)))


@dataclass
class ApeOutput(ModelOutput):
    """What `ApeModel` gives: embeddings at unit length, and their scaled cosines."""

    logits_per_image: torch.FloatTensor | None = None
    logits_per_text: torch.FloatTensor | None = None
    image_embeds: torch.FloatTensor | None = None
    text_embeds: torch.FloatTensor | None = None


class ApeModel(PreTrainedModel):
    """Two towers, their heads and a scale."""

    config_class = ApeConfig
    main_input_name = "pixel_values"
    _supports_sdpa = True

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any
    ) -> ApeModel:
        """As transformers; the files of a local directory are compared with its SHA256SUMS."""
        check(pretrained_model_name_or_path)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def __init__(self, config: ApeConfig):
        super().__init__(config)
        self.image_tower = _tower(config.vision_config, config.image)
        self.text_tower = _tower(config.text_config, config.text)
        self.image_head = _heads(config.image["heads"])
        self.text_head = _heads(config.text["heads"])
        if config.image["standardize"]:
            self.register_buffer("center", torch.zeros(config.image["standardize"]))
            self.register_buffer("spread", torch.ones(config.image["standardize"]))
        if config.weights:
            self.register_buffer("weights", torch.ones(config.weights))
        if config.languages:
            self.register_buffer("languages", torch.zeros(*config.languages))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.logit_bias = nn.Parameter(torch.tensor(0.0)) if config.logit_bias else None
        self.post_init()

    def get_image_features(self, pixel_values: Tensor, **_: Any) -> Tensor:
        """Images [B, 3, H, W], as the image processor makes them, to unit length [B, E]."""
        settings = self.config.image
        layers = settings.get("layers") or [None]
        inner = {"output_hidden_states": True} if layers != [None] else {}
        out = self.image_tower(pixel_values=pixel_values, **inner)
        x = torch.cat([self._pooled_image(out, settings, layer) for layer in layers], dim=-1)
        if settings["standardize"]:
            x = (x - self.center) / self.spread
        (head,) = self.image_head.values()
        return self._embedding(head(x, mean=_same))

    def _pooled_image(
        self, out: ModelOutput, settings: dict[str, Any], layer: int | None
    ) -> Tensor:
        front = (settings["prefix_tokens"], settings["cls_tokens"], settings["cls_mean"])
        if layer is not None:
            return _pool(out.hidden_states[layer], None, settings["pooling"], front)
        tokens = out.last_hidden_state
        image = tokens.ndim == 4  # A ConvNet's, whose last norm follows the mean of positions.
        if settings["pooling"] == "map" or (image and settings["pooling"] == "mean"):
            return out.pooler_output
        if image:
            tokens = tokens.flatten(2).transpose(1, 2)
        if settings["pooling"] == "none":
            return tokens
        if self.config.vision_config.model_type in _NORM_POOLED:
            tokens = self.image_tower.post_layernorm(tokens)
        pooled = _pool(tokens, None, settings["pooling"], front)
        norm = None
        if getattr(self.image_tower, "pooler", None) is not None:
            norm = self.image_tower.pooler.layernorm  # See `_tower`.
        elif settings.get("norm_twice"):
            norm = self.image_tower.layernorm
        if norm is not None:
            pooled = norm(pooled.unflatten(-1, (-1, tokens.shape[-1]))).flatten(-2)
        return pooled

    def get_text_features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        language: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """Token ids [B, T] and their mask, as the tokenizer makes them, to unit length [B, E].

        `language` [B] has the rows of the means of their languages, where the model has some.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        mask, settings = mask.bool(), self.config.text
        if settings["end_token"] is not None:
            mask = _until_end(input_ids, mask, settings["end_token"])
        layers = settings.get("layers") or [None]
        inner = {"output_hidden_states": True} if layers != [None] else {}
        out = self.text_tower(input_ids=input_ids, attention_mask=mask.long(), **inner)
        states = [out.last_hidden_state if i is None else out.hidden_states[i] for i in layers]
        tokens, z = torch.cat(states, dim=-1), 0.0
        if self.config.languages:  # Row 0 is the mean over languages.
            rows = torch.zeros_like(input_ids[:, 0]) if language is None else language
            tokens = tokens - self.languages[rows][:, None] * mask[..., None]

        def mean(y: Tensor) -> Tensor:
            return _pool(y, mask, "mean")

        for name, head in self.text_head.items():
            pooling = settings["heads"][name].get("pooling")
            x = _pool(tokens, mask, pooling) if pooling else tokens
            z = z + head(x, mean=_same if pooling else mean, mask=mask, ids=input_ids)
        return self._embedding(z)

    def _embedding(self, z: Tensor) -> Tensor:
        """Embeddings of what heads give [B, E]: weighted, cut to what is used, at unit length."""
        z = z * self.weights if self.config.weights else z
        return _normalize(z if z.shape[-1] == self.config.embed else z[:, : self.config.embed])

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        language: Tensor | None = None,
        **_: Any,
    ) -> ApeOutput:
        """Embeds images, texts or both; a caption is one segment, whatever `token_type_ids` say."""
        zimg = None if pixel_values is None else self.get_image_features(pixel_values)
        ztxt = None
        if input_ids is not None:
            ztxt = self.get_text_features(input_ids, attention_mask, language)
        logits = None
        if zimg is not None and ztxt is not None:
            logits = self.logit_scale.exp() * zimg @ ztxt.T
            logits = logits if self.logit_bias is None else logits + self.logit_bias
        return ApeOutput(
            logits_per_image=logits,
            logits_per_text=None if logits is None else logits.T,
            image_embeds=zimg,
            text_embeds=ztxt,
        )


def _tower(config: PreTrainedConfig, settings: dict[str, Any]) -> PreTrainedModel:
    """Transformers' own tower without what is not read of it, with adapters put in."""
    auto = AutoModelForTextEncoding if config.model_type in _ENCODERS else AutoModel
    tower = auto.from_config(config)
    # BEiT's last norm follows the pooling; elsewhere a pooler is a head.
    pools = settings["last_norm"] and getattr(config, "use_mean_pooling", False)
    if hasattr(tower, "pooler") and not pools:
        tower.pooler = None
    modules = dict(tower.named_modules())
    for name in _LAST_NORMS if not settings["last_norm"] else ():
        if name in modules:
            tower.set_submodule(name, nn.Identity())
    if settings["adapters"]:
        _put_adapters(tower, **settings["adapters"])
    return tower


def _put_adapters(
    tower: PreTrainedModel, blocks: int, places: list[str], before: bool, width: int, hidden: int
) -> None:
    """An adapter before (or after) each of these modules of the lowest blocks."""
    ends = tuple(f".{i}.{place}" for i in range(blocks) for place in places)
    for name, module in list(tower.named_modules()):
        if f".{name}".endswith(ends):
            module.adapter = _Adapter(width, hidden)
            if before:
                module.register_forward_pre_hook(_adapt_before)
            else:
                module.register_forward_hook(_adapt_after)


def _adapt_before(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (module.adapter(inputs[0]),)


def _adapt_after(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return module.adapter(output)


def _heads(settings: dict[str, dict[str, Any]]) -> nn.ModuleDict:
    """The heads of one side by name; their sum is the embedding."""
    made = {}
    for name, options in settings.items():
        options = {key: value for key, value in options.items() if key != "pooling"}
        made[name] = _HEADS[name](**options)
    return nn.ModuleDict(made)


def _same(x: Tensor) -> Tensor:
    """In the place of a mean, for heads on one vector."""
    return x


def _pool(
    tokens: Tensor,
    mask: Tensor | None,
    pooling: str,
    front: tuple[int, list[int], bool] = (0, [0], False),
) -> Tensor:
    """Tokens [B, T, d] to one vector each; without a mask all are real.

    In front of an image's patches stand so many tokens, of which "cls" reads these, as their mean
    or joined.
    """
    if "+" in pooling:
        parts = [_pool(tokens, mask, name, front) for name in pooling.split("+")]
        return torch.cat(parts, dim=-1)
    if mask is None:
        skip, places, mean = front
        if pooling != "cls":
            return tokens[:, skip:].mean(dim=1)
        return tokens[:, places].mean(dim=1) if mean else tokens[:, places].flatten(1)
    places = torch.arange(mask.shape[1], device=mask.device)
    first = torch.where(mask, mask.shape[1] - places, 0).argmax(dim=1)
    if pooling in ("cls", "last"):
        at = first if pooling == "cls" else torch.where(mask, places, -1).argmax(dim=1)
        # By shape[0] and not by len: tracing would hold the latter for a constant.
        return tokens[torch.arange(tokens.shape[0], device=tokens.device), at]
    if pooling == "max":
        return tokens.masked_fill(~mask[..., None], float("-inf")).amax(dim=1)
    kept = mask[..., None].to(tokens.dtype)
    if pooling == "weightedmean":
        kept = kept * (places + 1 - first[:, None])[..., None]
    total = kept.sum(dim=1).clamp(min=1.0)
    return (tokens * kept).sum(dim=1) / (total.sqrt() if pooling == "mean_sqrt_len" else total)


def _until_end(ids: Tensor, mask: Tensor, end: int) -> Tensor:
    """The mask up to and with the end-of-text token; -1 means the largest id of each text."""
    ids = ids.masked_fill(~mask, -1)
    is_end = ids == (ids.amax(dim=1, keepdim=True) if end == -1 else end)
    ended_before = is_end.long().cumsum(dim=1) - is_end.long() > 0
    return mask & ~ended_before


def _normalize(z: Tensor) -> Tensor:
    """Rows at unit length; a zero row stays zero."""
    return z * (z * z).sum(dim=-1, keepdim=True).clamp(min=1e-24).rsqrt()
