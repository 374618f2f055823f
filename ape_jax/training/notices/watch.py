"""Watches the metrics of a training for signs that nothing is learned.

All figures are those that the step computes anyway. A sign must hold for several steps, and a
healthy start shows none: the loss may stand near ln B for a while, a scale may sink a little.
"""

from __future__ import annotations

import collections
import statistics
from collections.abc import Iterator, Mapping, Sequence

from ape_jax.config import Config
from ape_jax.config.components import LOSSES
from ape_jax.training.notices.record import Notice

ALIKE = 1e-6
"""Spread below which embeddings of unit length are the same: what rounding leaves of nothing."""
_EXACT, _NEAR = 1e-4, 0.01  # Relative distance of a loss from that of a model that knows nothing.
_PATIENCE, _LONG = 10, 100  # Steps; twice as many are a slow start.
_VANISHED, _EXPLODED = 1e-10, 1e4


class Watch:
    """Looks at the metrics of every step.

    Args:
      config: of the run.
      lines: of `metrics.jsonl` up to here, from an earlier start.
    """

    def __init__(self, config: Config, lines: Sequence[Mapping[str, float]] = ()):
        self._config = config
        self._guess = uninformed(config)
        losses = [_loss(line, "train/") for line in lines if "train/loss" in line]
        self._lowest = min(losses, default=float("inf"))
        self._first = collections.deque[float](maxlen=2 * _PATIENCE)  # Gradient norms.
        self._runs: collections.Counter[str] = collections.Counter()
        self._explained = False  # Whether a notice says already why nothing is learned.
        self._began: int | None = None

    def see(self, step: int, scalars: Mapping[str, float]) -> list[Notice]:
        """What the metrics of a step show.

        Args:
          step: number of steps with this one.
          scalars: its metrics, all finite.
        """
        self._began = step if self._began is None else self._began
        kinds = (self._collapse, self._guessing, self._scale, self._gradient)
        found = [
            Notice(step=step, kind=kind, message=f"step {step}: {message}")
            for look in kinds
            for kind, message in look(step, scalars)
        ]
        self._lowest = min(self._lowest, _loss(scalars))
        return found

    def _lasts(self, kind: str, holds: bool, steps: int) -> bool:
        """Whether a sign has held for so many steps in a row; fewer where there are fewer."""
        self._runs[kind] = self._runs[kind] + 1 if holds else 0
        return self._runs[kind] == max(1, min(steps, self._config.train.steps // 2))

    def _collapse(self, step: int, scalars: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        for side, what in (("image", "images"), ("text", "captions")):
            spread = scalars.get(f"{side}_spread")
            if spread is None or not self._lasts(side, spread < ALIKE, _PATIENCE // 2):
                continue
            at_once = step - (self._began or 0) < _PATIENCE
            cause = (
                f"from the first step on: look whether the {what} and their features differ at all"
                if at_once
                else f"training has collapsed: lower optim.lr (now {scalars.get('lr', 0):.3g})"
            )
            self._explained = True
            yield (
                f"{side} collapse",
                f"the embeddings of all {what} in a batch are the same (spread {spread:.1e}), "
                f"{cause}",
            )

    def _guessing(self, step: int, scalars: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        if self._guess is None:
            return
        loss, steps = _loss(scalars), self._config.train.steps
        name = f"{self._guess:.4f}, that of guessing"
        moves = scalars.get("lr", 1.0) > 0
        exact = moves and abs(loss - self._guess) <= _EXACT * self._guess
        if self._lasts("exact", exact, _PATIENCE):
            self._explained = True
            yield (
                "loss of guessing",
                f"the loss stands at {loss:.4f}, exactly {name} among the pairs of a batch: no "
                "pair is told from another; look at the features and at optim.lr",
            )
        warm = max(self._config.optim.warmup, 0)
        none = min(self._lowest, loss) > (1 - _NEAR) * self._guess
        none &= steps >= 2 * _PATIENCE and not self._explained
        if none and step == min(steps, max(2 * _LONG + warm, steps // 5)):
            yield (
                "nothing learned",
                f"the loss is {loss:.4f} and was never below {name}: nothing is learned; the "
                "captions may not belong to their images (`ape-jax pairs` shows them), or "
                f"optim.lr={self._config.optim.lr:g} is far off",
            )
        lost = self._lowest < 0.9 * self._guess and loss > (1 - _NEAR) * self._guess
        if self._lasts("lost", lost, 5 * _PATIENCE):
            yield (
                "learned and lost",
                f"the loss was {self._lowest:.4f} and is {loss:.4f} again, above {name}: what was "
                f"learned is lost; lower optim.lr={self._config.optim.lr:g} or set optim.clip",
            )

    def _scale(self, step: int, scalars: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        loss, scale = self._config.loss, scalars["scale"]
        if not loss.learn_scale:
            return
        at_bound = scale >= loss.scale_max * (1 - 1e-5) and loss.scale < loss.scale_max
        if self._lasts("bound", at_bound, max(_LONG, self._config.train.steps // 10)):
            yield (
                "scale at its bound",
                f"the scale has stood at its bound loss.scale_max={loss.scale_max:g} for "
                f"{self._runs['bound']} steps, with a loss of {scalars['loss']:.4f}: where that is "
                "near 0 the pairs are fitted, so take fewer steps or more pairs, else a higher "
                "bound",
            )
        if self._lasts("small", scale < loss.scale / 10, _PATIENCE // 2):
            yield (
                "scale near zero",
                f"the scale has fallen from {loss.scale:.4g} to {scale:.3g}: cosines hardly count; "
                "captions may not belong to their images, or optim.lr="
                f"{self._config.optim.lr:g} is too high",
            )

    def _gradient(self, step: int, scalars: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        norm, fitted = scalars["grad_norm"], scalars["loss"] < 1e-3
        if self._lasts("vanished", norm < _VANISHED and not fitted, _PATIENCE):
            self._explained = True
            yield (
                "no gradient",
                f"the gradient has norm {norm:.1e} while the loss is {scalars['loss']:.4f}: "
                "nothing changes any more; features may be alike, all zero or far too large",
            )
        usual = statistics.median(self._first) if len(self._first) == self._first.maxlen else 0
        if usual and self._lasts("exploded", norm > _EXPLODED * usual, 3):
            yield (
                "gradient explodes",
                f"the gradient has norm {norm:.3g}, where the first steps had {usual:.3g}: lower "
                f"optim.lr={self._config.optim.lr:g} or set optim.clip",
            )
        if len(self._first) < (self._first.maxlen or 0):
            self._first.append(norm)


def _loss(scalars: Mapping[str, float], prefix: str = "") -> float:
    """The contrastive loss, without the terms that are added to it."""
    return scalars.get(f"{prefix}contrastive", scalars[f"{prefix}loss"])


def uninformed(config: Config) -> float | None:
    """The loss of a model that guesses, by the config's loss and batch; None where none is known.

    Args:
      config: a resolved config.
    """
    loss = LOSSES[config.loss.name].uninformed
    if loss is None or config.loss.hard:  # How many negatives images have differs.
        return None
    pairs = config.train.batch // (2 if config.latent.mixup else 1)
    return loss(pairs // (config.loss.local_groups if config.loss.negatives == "local" else 1))
