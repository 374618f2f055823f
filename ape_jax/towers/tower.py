"""A pretrained encoder: its description, and beside it a tree of weights.

Every family's module has one static field `config` (a `TowerConfig`), the fields `dtype`,
`param_dtype`, `unroll` and `remat` (image towers also `inference`), and four methods:

    embed(batch)                -> (x f32 [B, T, d], mask bool [B, T])     hidden state 0
    run_blocks(x, mask)         -> x          `config.depth` blocks, parameters stacked in "blocks";
                                              more where `config.places` gives more
    finish(x, mask, pooling)    -> Encoded    the last norm where there is one, and the pooling
    __call__(batch, pooling)    -> Encoded    the three in a row; what `init` runs

Because the blocks' parameters are stacked, the part of a tower between two hidden states is the
same module with a smaller `config.depth` and a slice of "blocks": `Tower.apply(layer=k)` and
`Tower.resume(start=k)` are that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from ape_jax.config import poolings
from ape_jax.errors import UserError
from ape_jax.nn.layers import NormConfig
from ape_jax.nn.tree import Tree
from ape_jax.towers import pooling as pooling_lib
from ape_jax.towers.outside import OutsideEncoder

Kind = Literal["image", "text"]
MAX_DEPTH = 1000  # a damaged config must not keep us counting


def added(default: Any) -> Any:
    """A field of a config that a later version adds: at its default it changes no fingerprint."""
    return dataclasses.field(default=default, metadata={"added": True})


def beside(default: Any) -> Any:
    """A field of a config on which no output of the tower's module depends: in no fingerprint."""
    return dataclasses.field(default=default, metadata={"beside": True})


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """Common fields of the families' configs; hashable, so that modules can hold it.

    Attributes:
      kind: "image" or "text".
      family: the name of the family.
      width: d, of the residual stream.
      depth: how many blocks.
      heads: attention heads.
      head_width: channels of a head; None: the width by the heads.
      mlp_width: hidden width of the MLP (of one half, if it is gated).
      pooling: the pooling the tower was made for.
      activation: of the MLP; see layers.ACTIVATIONS.
      norm_eps: of every norm.
      norm_kind, norm_bias, norm_offset: see `layers.NormConfig`.
      prefix_tokens: tokens before the first patch or word that carry none (CLS, registers).
      cls_tokens: those among them that "cls" pools of an image.
      cls_mean: as their mean; if not, they are joined.
      kinds: of each block of the whole tower, which of several attentions it has (local, global);
        a block above them is of kind 0. () where all blocks are alike.
      tied: all blocks are one and the same (ALBERT); its parameters in "blocks" are [1, ...].
      first: the tower's blocks below the first one of this module, which is a part of the tower.
      inner_layers: hidden states below the output can be read; not where they differ in width.
      joined: layers whose pooled vectors, of a text its tokens, are the output, end to end in this
        order (`joined.joining`); () for the output of the tower alone.
    """

    kind: Kind
    family: str
    width: int
    depth: int
    heads: int
    mlp_width: int
    pooling: str
    activation: str
    norm_eps: float
    head_width: int | None = added(None)
    norm_kind: Literal["layer", "rms"] = added("layer")
    norm_bias: bool = added(True)
    norm_offset: float = added(0.0)
    prefix_tokens: int = 0
    cls_tokens: tuple[int, ...] = added((0,))
    cls_mean: bool = added(False)
    kinds: tuple[int, ...] = added(())
    tied: bool = added(False)
    first: int = added(0)
    inner_layers: bool = added(True)
    joined: tuple[int, ...] = added(())

    def __post_init__(self) -> None:
        if self.depth > MAX_DEPTH:
            raise UserError(
                f"the {self.family} tower has {self.depth} layers; write num_hidden_layers in "
                f"config.json, {MAX_DEPTH} or fewer"
            )
        if not 0 <= self.norm_eps < 1:
            raise UserError(
                f"the {self.family} tower has {self.norm_eps} as the epsilon of its norms; write "
                "a number from 0 to 1 in config.json, such as 1e-6"
            )
        if self.head_width is None and self.width % self.heads:
            raise UserError(
                f"the {self.family} tower has width {self.width}, which its {self.heads} heads "
                "do not divide; write another hidden_size or num_attention_heads in config.json"
            )

    @property
    def norm(self) -> NormConfig:
        """The tower's norm."""
        return NormConfig(
            eps=self.norm_eps,
            kind=self.norm_kind,
            bias=self.norm_bias,
            offset=self.norm_offset,
        )

    @property
    def size_of_head(self) -> int:
        """The channels of a head."""
        return self.head_width or self.width // self.heads

    @property
    def own_kinds(self) -> tuple[int, ...] | None:
        """The kinds of the blocks of this module; None where all blocks are alike."""
        if not self.kinds:
            return None
        blocks = range(self.first, self.first + self.depth)
        return tuple(self.kinds[i] if i < len(self.kinds) else 0 for i in blocks)

    def part(self, start: int, depth: int) -> TowerConfig:
        """The config of `depth` blocks from block `start` on."""
        return dataclasses.replace(self, depth=depth, first=self.first + start)

    def places(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What `run_blocks` must be told of a batch beside its tokens and mask: `grid`, or {}."""
        return {}

    @property
    def token_width(self) -> int:
        """The width of `Encoded.tokens`, where those of a text are joined of several layers."""
        return self.width * max(len(self.joined), 1)

    def pooled_width(self, pooling: str | None = None) -> int:
        """The width of `Encoded.pooled`."""
        joined = 1 if self.cls_mean else len(self.cls_tokens)
        parts = poolings.parts(pooling or self.pooling)
        one = self.width * max(sum(joined if part == "cls" else 1 for part in parts), 1)
        return one * max(len(self.joined), 1)

    def pooled_parts(self, pooling: str | None = None) -> tuple[int, ...]:
        """Widths of what is joined in `Encoded.pooled`: a vector a layer, mode and class token."""
        whole = self.pooled_width(pooling)
        if not poolings.parts(pooling or self.pooling):  # The module's own, in one piece.
            return (whole,)
        return (self.width,) * (whole // self.width)


class Encoded(Tree):
    """Output of a tower for a batch.

    Attributes:
      tokens: f32 [B, T, d], CLS and registers included.
      mask: bool [B, T], True at real tokens.
      pooled: f32 [B, d'] or None if the pooling is "none"; d' as `TowerConfig.pooled_width` says.
    """

    tokens: Float[Array, "b t d"]
    mask: Bool[Array, "b t"]
    pooled: Float[Array, "b e"] | None


def pool(
    tokens: Float[Array | np.ndarray, "b t d"],
    mask: Bool[Array | np.ndarray, "b t"],
    pooling: str,
    config: TowerConfig,
) -> Float[Array, "b e"] | None:
    """Pools as `pool_tokens` does; None for "none"."""
    return None if pooling == "none" else pool_tokens(tokens, mask, pooling, config)


def pool_tokens(
    tokens: Float[Array | np.ndarray, "b t d"],
    mask: Bool[Array | np.ndarray, "b t"],
    pooling: str,
    config: TowerConfig,
) -> Float[Array, "b e"]:
    """Pool tokens to one vector each; see `check_pooling` for what fits which tower.

    Of an image "mean" is over the patches (prefix tokens left out), of a text over all real tokens;
    modes joined by "+" are concatenated. What `pooling.OWN` lists belongs to the module.
    """
    front = {}
    if config.kind == "image":
        front = {"skip": config.prefix_tokens, "cls": config.cls_tokens}
        front["cls_mean"] = config.cls_mean
    return pooling_lib.joined(tokens, mask, pooling, **front)


def check_pooling(pooling: str, config: TowerConfig) -> None:
    """Raise a UserError if the tower cannot pool like this."""
    if config.kind == "image":
        fits = ["mean", "none"] + ["cls", "cls+mean"] * (config.prefix_tokens > 0)
        more = ""
    else:
        fits = [*poolings.MODES, "none"]
        more = ", or several of them joined by '+'"
    if config.pooling not in fits and not (more and poolings.parts(config.pooling)):
        fits.append(config.pooling)
    if pooling not in fits and not (more and poolings.parts(pooling)):
        raise UserError(
            f"pooling is {pooling!r}, which a {config.family} tower does not have; "
            f"write one of {', '.join(sorted(fits))}{more}"
        )


def take_blocks(params: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
    """`params` with blocks `start`..`stop - 1` only (all other parameters as they are)."""
    sliced = {k: v for k, v in params.items() if k != "blocks"}
    if stop > start:
        sliced["blocks"] = slice_blocks(params["blocks"], start, stop)
    return sliced


def slice_blocks(blocks: PyTree, start: int, stop: int) -> PyTree:
    """Blocks `start`..`stop - 1` of stacked parameters; one that stands for all stays as it is."""
    return jax.tree.map(lambda a: a if len(a) == 1 else a[start:stop], blocks)


Params = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Tower:
    """A pretrained encoder without its weights, which `towers.read` gives beside it.

    Attributes:
      kind: "image" or "text".
      module: the Flax module; `module.apply({"params": params}, batch)` is the plain forward.
      config: the family's TowerConfig.
      prepare: raw images or texts -> batch of numpy arrays. By the kind of tower an `ImagePrepare`,
        a `TextPrepare`, a `VectorPrepare` or an `OutsidePrepare`, each with settings of its own;
        None where nothing is ever encoded.
      spec: what it was loaded from.
      digest: sha256 over names, types, shapes and bytes of the tensors as they lie in the file.
      options: the load options that changed the tower, for whoever records it.
      excluded: tensors that lie among the tower's and are not its own: LilT's adapters.
      notes: what was said when it was read: settings that were not read, and what was assumed.
      outside: the model of another library that computes its features; None for one that JAX runs.
    """

    kind: Kind
    module: nn.Module
    config: Any
    prepare: Any
    spec: str
    digest: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    excluded: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    outside: OutsideEncoder | None = None

    def apply(
        self,
        params: Params,
        batch: Mapping[str, Any],
        *,
        layer: int = -1,
        pooling: str | None = None,
    ) -> Encoded:
        """Encode a batch with these parameters: pure, differentiable, jit-able.

        Args:
          params: nested dict of arrays; blocks stacked [L, ...] under "blocks".
          batch: {"image": f32 [B, H, W, 3]} or {"ids": i32 [B, T], "mask": bool [B, T]}.
          layer: as transformers' `hidden_states` counts. -1 is the final output (after the last
            norm where there is one); k > 0 the residual stream after block k, of which only the
            first k blocks run; 0 the embeddings; -2 the stream after the last block but one.
          pooling: see `pool`; None is the tower's own. An own pooling that is a trained head
            (`pooling.OWN`) exists at layer -1 only; elsewhere None then gives `pooled=None`.

        Raises:
          UserError: a layer or pooling the tower does not have.
        """
        return forward(self.module, *self.resolve(layer, pooling), params, batch)

    def resume(
        self,
        params: Params,
        tokens: Float[Array | np.ndarray, "b t d"],
        mask: Bool[Array | np.ndarray, "b t"],
        *,
        start: int,
        layer: int = -1,
        pooling: str | None = None,
        grid: tuple[int, int] | None = None,
    ) -> Encoded:
        """The rest of `apply`, from the residual stream after block `start` on.

        With `out = apply(p, batch, layer=start)`, `resume(p, out.tokens, out.mask, start=start)`
        equals `apply(p, batch)`. Params are as for `apply`, where whatever lies under the frontier
        may be left out: if "blocks" is shorter than the tower is deep, it must hold the blocks
        `start`.. alone. Towers whose blocks turn patches by their places (`config.places`) take
        `grid`, the patches (down, across); None is a square.
        """
        depth, final, pooling = self.resolve(layer, pooling)
        if not 0 <= start <= depth:
            raise UserError(f"start is {start}; write a number from 0 to {depth}")
        if start < depth and _stack_depth(params) == self.config.depth:
            params = take_blocks(params, start, depth)
        elif start < depth:
            params = take_blocks(params, 0, depth - start)
        module = _part(self.module, start, depth - start)
        places = {} if grid is None else {"grid": grid}
        run = partial(_blocks_and_finish, places=places, final=final, pooling=pooling)
        return nn.apply(run, module)({"params": params}, jnp.asarray(tokens), jnp.asarray(mask))

    def resolve(self, layer: int, pooling: str | None) -> tuple[int, bool, str]:
        """Resolves a layer and a pooling for `apply`.

        Returns:
          The blocks to run, whether that gives the final output, and the pooling.

        Raises:
          UserError: a layer or pooling the tower does not have.
        """
        depth = self.config.depth
        if layer != -1 and not self.config.inner_layers:
            raise UserError(
                f"layer is {layer}; the hidden states of a {self.config.family} tower differ in "
                "width, so that only its output can be read: write -1"
            )
        if not -depth - 1 <= layer <= depth:
            raise UserError(
                f"layer is {layer}; this tower has {depth} blocks: write -1 for its output, "
                f"or a number from 0 (the embeddings) to {depth}"
            )
        final = layer == -1
        if pooling is None:
            own: str = self.config.pooling
            pooling = "none" if own in pooling_lib.OWN and not final else own
        check_pooling(pooling, self.config)
        if pooling in pooling_lib.OWN and not final:
            raise UserError(
                f"pooling {pooling!r} belongs to layer -1; write another for layer {layer}"
            )
        return (depth if final else layer % (depth + 1)), final, pooling


def _part(module: nn.Module, start: int, depth: int) -> nn.Module:
    return module.clone(config=module.config.part(start, depth))


def _stack_depth(params: Mapping[str, Any]) -> int:
    return jax.tree.leaves(params["blocks"])[0].shape[0]


def _blocks_and_finish(
    module: nn.Module,
    x: Array,
    mask: Array,
    *,
    places: Mapping[str, Any],
    final: bool,
    pooling: str,
) -> Encoded:
    x = module.run_blocks(x, mask, **places)
    if final:
        return module.finish(x, mask, pooling)
    return Encoded(tokens=x, mask=mask, pooled=pool(x, mask, pooling, module.config))


def forward(
    module: nn.Module,
    depth: int,
    final: bool,
    pooling: str,
    params: Mapping[str, Any],
    batch: Mapping[str, Any],
) -> Encoded:
    """Encodes a batch with `depth` blocks, as `Tower.resolve` gives them."""
    if depth != module.config.depth:
        params = take_blocks(params, 0, depth)
        module = _part(module, 0, depth)

    def run(module: nn.Module, batch: Mapping[str, Any]) -> Encoded:
        reading = {"places": module.config.places(batch), "final": final, "pooling": pooling}
        return _blocks_and_finish(module, *module.embed(batch), **reading)

    return nn.apply(run, module)({"params": params}, batch)
