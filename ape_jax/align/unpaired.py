"""The part of the loss that needs no pairs: KLOT, and the structure term of unpaired data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PyTree

from ape_jax.align.latent import Latent
from ape_jax.align.losses import klot_loss
from ape_jax.align.losses.contrastive import cosines_of
from ape_jax.align.model import Batch, Model
from ape_jax.align.structure import Structure
from ape_jax.config.sections import UnpairedConfig

PREFIX = "unpaired_"
"""Before the names of the arrays of a batch that belong to unpaired images and texts."""

TEACHER = "teacher"
"""The teacher's parameters in `frozen`."""

Embedded = tuple[Float[Array, "n E"], Float[Array, "m E"]]

_STREAM = 103  # Apart from the streams of `align.latent`.


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnpairedTerm:
    """KLOT between the model and a teacher that stays as it is, and the structure term of heads.

    Both are of an unpaired batch, and either may be off.

    Attributes:
      teacher: the model whose transport plan is followed; its parameters are in `frozen`. None
        where there is no KLOT.
      weight: of KLOT.
      eps: entropy of the model's plan.
      teacher_eps: entropy of the teacher's plan.
      iterations: Sinkhorn iterations for each.
      latent: augmentation of the features that the model sees; the teacher sees them as they are.
      structure: the term that keeps geometry, None for none; with its own weight and ramp.
    """

    teacher: Model | None = None
    weight: float = 0.0
    eps: float = 0.05
    teacher_eps: float = 0.005
    iterations: int = 100
    latent: Latent | None = None
    structure: Structure | None = None

    def __call__(
        self,
        model: Model,
        mesh: Mesh | None,
        trainable: PyTree,
        frozen: PyTree,
        batch: Batch,
        rng: Array | None = None,
        step: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, ""], Mapping[str, Any]]:
        """Computes what is added to the loss, and its parts without their weights as metrics.

        Args:
          model: the model that is trained.
          mesh: the devices that the batch is sharded over.
          trainable: its trained parameters.
          frozen: the others, and the teacher's.
          batch: with the unpaired arrays, whose names begin with `PREFIX`.
          rng: turns dropout and augmentation on.
          step: number of steps before this one, for the ramp of the structure term.
        """
        unpaired = {k.removeprefix(PREFIX): x for k, x in batch.items() if k.startswith(PREFIX)}
        image, text = model.image_features(frozen, unpaired), model.text_features(frozen, unpaired)
        clean = image, text
        if rng is not None:
            rng = jax.random.fold_in(rng, _STREAM)
            if self.latent is not None:
                image, text = self.latent.perturb(image, text, rng)
        after = _embedded(model, trainable, frozen, image, text, rng)
        total, found = jnp.zeros(()), {}
        if self.teacher is not None:
            found["klot"] = self._klot(after, frozen, clean, mesh)
            total = total + self.weight * found["klot"]
        if self.structure is not None:
            before, steps = (
                self.structure.pooled(*clean),
                jnp.zeros((), int) if step is None else step,
            )
            added, found["unpaired_structure"] = self.structure(before, after, steps, mesh=mesh)
            total = total + added
        return total, found

    def _klot(
        self, after: Embedded, frozen: PyTree, clean: tuple[Any, Any], mesh: Mesh | None
    ) -> Float[Array, ""]:
        assert self.teacher is not None
        wanted = _embedded(self.teacher, frozen[TEACHER], frozen, *clean, None)
        return klot_loss.klot(
            cosines_of(*after, mesh),
            jax.lax.stop_gradient(cosines_of(*wanted, mesh)),
            eps=self.eps,
            teacher_eps=self.teacher_eps,
            iterations=self.iterations,
            mesh=mesh,
        )


def _embedded(
    model: Model, trainable: PyTree, frozen: PyTree, image: Any, text: Any, rng: Array | None
) -> Embedded:
    keys = (None, None) if rng is None else jax.random.split(rng)
    zimg, _ = model.align(trainable, frozen, image, keys[0])
    ztxt, _ = model.align(trainable, frozen, text, keys[1])
    return zimg, ztxt


def from_config(
    config: UnpairedConfig,
    teacher: Model | None,
    latent: Latent | None = None,
    structure: Structure | None = None,
) -> UnpairedTerm | None:
    """The config's `unpaired` group as a part of the loss, None where it has none.

    Args:
      config: the group.
      teacher: the model to follow, None where there is none.
      latent: augmentation of features.
      structure: the structure term of the pairs, which the group may want for unpaired data too.
    """
    if not config.in_steps:
        return None
    how = {"eps": config.eps, "teacher_eps": config.teacher_eps, "iterations": config.iterations}
    kept = structure if config.structure else None
    return UnpairedTerm(teacher=teacher, weight=config.klot, latent=latent, structure=kept, **how)
