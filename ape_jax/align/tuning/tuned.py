"""A tower and what is trained of it: two trees of parameters, and the forward pass in two parts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ape_jax.align.tuning import peft, selection
from ape_jax.config import tune as tune_lib
from ape_jax.config.tune import Frontier, Tune
from ape_jax.errors import UserError
from ape_jax.towers.family import FAMILIES
from ape_jax.towers.tower import Encoded, Tower, slice_blocks

APPENDED = "appended"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Tuned:
    """One tower under a tuning mode.

    What is below the frontier (`Tune.frontier`) is frozen and depends on raw inputs only: `encode`.
    What is above it is the training step: `resume`, or `apply` where the frontier is the raw
    input. In both the trained parameters are merged with the frozen rest, which is under
    `stop_gradient`. Towers have no dropout, in neither part.

    `append` puts one fresh block of the tower's own kind on top of those that are read, and the
    tower's last norm, which then follows it, is trained as well (LilT's deep adapter). It is the
    tower grown by a block, resumed from there.

    Attributes:
      tower: the pretrained encoder.
      tune: the name of a mode, see `ape_jax.config.tune`.
      layer: which hidden state is read (`Tower.apply`).
      pooling: how it is pooled.
      options: sizes of what is added.

    References:
      Khan and Fu, arXiv 2303.11866 (LilT); Ba et al., arXiv 1607.06450 (layer norm); Ben Zaken et
      al., "BitFit", arXiv 2106.10199.
    """

    tower: Tower
    tune: str = "frozen"
    layer: int = -1
    pooling: str = "none"
    options: peft.Options = dataclasses.field(default_factory=peft.Options)

    @property
    def frontier(self) -> Frontier:
        """The deepest activation that depends on no trained parameter."""
        return self._mode.frontier

    @property
    def depth(self) -> int:
        """Number of the tower's blocks that are read."""
        return selection.blocks_read(self.tower, self.layer)

    @property
    def start(self) -> int:
        """The hidden state that is the frontier, where it is one."""
        return self.depth - self._mode.top

    @property
    def reading(self) -> dict[str, Any]:
        """The layer and pooling with which the tower encodes up to the frontier."""
        if self.frontier == "hidden":
            return {"layer": self.start, "pooling": "none"}
        return {"layer": self.layer, "pooling": self.pooling}

    @functools.cached_property
    def _mode(self) -> Tune:
        return tune_lib.parse(self.tune)

    def init(self, key: Array, params: PyTree) -> tuple[PyTree, PyTree]:
        """`(trainable, frozen)`: all parameters that are read, in one tree or the other.

        Leaves keep the tower's names. Trained ones are float32; those of an appended block are
        under "appended", [1, ...] each. With `top:K`, "blocks" is in both trees: the upper K in
        one, those below in the other.

        Args:
          key: of what is added.
          params: the tower's, on the host or on devices; leaves that are kept stay there.

        Raises:
          UserError: for a mode that this tower has nothing for.
        """
        params = selection.used(self.tower, params, self.layer, self.pooling)
        if self._mode.top:
            trainable, frozen = self._split_top(params)
        else:
            trainable, frozen = selection.split(
                selection.merge(params, *self._added(params, key)), self._is_trained
            )
        if not trainable and self.tune != "frozen":
            raise UserError(
                f"{self.tune!r} trains nothing of the {self.tower.config.family} tower up to layer "
                f"{self.layer}; write 'frozen'"
            )
        return trainable, frozen

    def encode(self, frozen: PyTree, batch: Mapping[str, Array]) -> Encoded:
        """The frozen part of a batch, up to the frontier."""
        return jax.lax.stop_gradient(self.tower.apply(frozen, batch, **self.reading))

    def apply(self, trainable: PyTree, frozen: PyTree, batch: Mapping[str, Array]) -> Encoded:
        """The whole tower, from raw inputs."""
        params = selection.merge(trainable, jax.lax.stop_gradient(frozen))
        appended = params.pop(APPENDED, None)
        with peft.applied(self.tower, self.options):
            if appended is None:
                return self.tower.apply(params, batch, layer=self.layer, pooling=self.pooling)
            below = self.tower.apply(params, batch, layer=self.depth, pooling="none")
            # Still in here: a head that pools may have LoRA, too.
            return self._resume_appended(params, appended, below.tokens, below.mask)

    def resume(
        self,
        trainable: PyTree,
        frozen: PyTree,
        hidden: Float[Array, "B T d"],
        mask: Bool[Array, "B T"],
    ) -> Encoded:
        """The trained part, from the hidden state at the frontier on."""
        rest = {name: tree for name, tree in frozen.items() if name not in ("blocks", "embed")}
        params = selection.merge(trainable, jax.lax.stop_gradient(rest))
        hidden = hidden.astype(jnp.float32)  # Caches may hold it narrower.
        if APPENDED in params:
            return self._resume_appended(params, params.pop(APPENDED), hidden, mask)
        reading = {"layer": self.layer, "pooling": self.pooling}
        return self.tower.resume(params, hidden, mask, start=self.start, **reading)

    def merged(self, trainable: PyTree, frozen: PyTree) -> PyTree:
        """All parameters that are read, in one tree, as a tower has them that is not tuned.

        LoRA is multiplied out; the blocks of `top:K`, and an appended one, stand on those below
        them. Adapters stay beside what they change, one for each block that has them.
        """
        below = dict(frozen)
        lower = below.pop("blocks", {}) if self._mode.top else {}
        params = peft.merge_lora(selection.merge(trainable, below), self.options.lora_alpha)
        appended = params.pop(APPENDED, {})
        if lower or appended:
            params["blocks"] = _stacked(lower, params.get("blocks", {}), appended)
        return params

    def _is_trained(self, name: str) -> bool:
        dead = selection.is_dead(name, self.tower, self.pooling)
        shared = FAMILIES[self.tower.config.family].shared if self._mode.top else ()
        return selection.is_trained(name, self._mode, shared) and not dead

    def _split_top(self, params: PyTree) -> tuple[PyTree, PyTree]:
        if self._mode.top > self.depth:
            raise UserError(
                f"{self.tune!r}: layer {self.layer} of this tower lies above {self.depth} blocks; "
                + (f"write 'top:{self.depth}' or fewer" if self.depth else "write another mode")
            )
        if self.start:
            self._refuse_tied(f"it trains {self._mode.top} of them")
        below = {name: params[name] for name in ("embed", "pre_norm") if name in params}
        if self.start:
            below["blocks"] = slice_blocks(params["blocks"], 0, self.start)
        above = {name: tree for name, tree in params.items() if name not in below}
        above["blocks"] = params["blocks"]
        if self.start:
            above["blocks"] = slice_blocks(params["blocks"], self.start, self.depth)
        trainable, rest = selection.split(above, self._is_trained)
        return trainable, {**below, **rest}

    def _added(self, params: PyTree, key: Array) -> list[PyTree]:
        """Fresh parameters, as trees that have no leaf in common with the tower's."""
        parts, added = self._mode.parts, []
        keys = [jax.random.fold_in(key, place) for place in range(3)]
        # A tower without blocks is told so where its family takes no adapters at all.
        if "adapter" in parts and (self.depth or not FAMILIES[self.tower.config.family].adapters):
            added.append(peft.adapters(self.tower, params, keys[0], self.options))
        if "lora" in parts:
            added.append(peft.lora(params, keys[1], self.options))
        if "append" in parts:
            self._refuse_tied("it adds another")
            added.append({APPENDED: self._fresh_block(keys[2])})
        return added

    def _refuse_tied(self, why: str) -> None:
        config = self.tower.config
        if config.tied:
            raise UserError(
                f"{self.tune!r}: all {config.depth} blocks of the {config.family} tower are one "
                f"and the same, and {why}; write another mode"
            )

    def _fresh_block(self, key: Array) -> PyTree:
        """A block as its class begins: kernels normal with deviation 0.02, biases zero."""
        config = self.tower.config
        length = config.prefix_tokens + 4  # A square of patches.
        example = jnp.zeros((1, length, config.width)), jnp.ones((1, length), bool)
        module = self._grown.module
        return nn.init(lambda grown, x, mask: grown.run_blocks(x, mask), module)(key, *example)[
            "params"
        ]["blocks"]

    @property
    def _grown(self) -> Tower:
        """The tower of one block that stands on top of the blocks that are read."""
        config = self.tower.config.part(self.depth, 1)
        module = self.tower.module.clone(config=config)
        return dataclasses.replace(self.tower, config=config, module=module)

    def _resume_appended(
        self, params: PyTree, block: PyTree, hidden: Array, mask: Array
    ) -> Encoded:
        params = {**params, "blocks": block}
        layer = -1 if self.layer == -1 else 1
        return self._grown.resume(params, hidden, mask, start=0, layer=layer, pooling=self.pooling)


def _stacked(*stacks: PyTree) -> PyTree:
    """Blocks on blocks: leaves [L, ...] of the same name end to end."""
    parts: dict[str, list[Array]] = {}
    for stack in stacks:
        for name, leaf in selection.flatten(stack).items():
            parts.setdefault(name, []).append(leaf.astype(jnp.float32))
    joined = {name: jnp.concatenate(leaves) for name, leaves in parts.items()}
    return flax.traverse_util.unflatten_dict(joined, sep="/")
