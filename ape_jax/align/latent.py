"""Augmentation of features that were encoded once: noise, dropout and mixup, in the training step.

Everything happens on the device, keyed by (seed, step), and only in training. At zero an
augmentation is not in the program at all.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ape_jax.align.packing import ImageFeatures, TextFeatures
from ape_jax.config.sections import LatentConfig, TrainConfig
from ape_jax.errors import UserError

# Apart from the streams that the heads' dropout takes from the same step's key.
_FEATURES, _MIXUP = 101, 102


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latent:
    """Augmentation of features in a training step.

    Mixup is FuseMix: the pairs 2k and 2k + 1 of a batch become one new pair,

        lambda * (image, text)[2k] + (1 - lambda) * (image, text)[2k + 1],

    with one lambda ~ Beta(mixup, mixup) a step for both sides. B pairs become B / 2, each record is
    in one of them, and the loss is that of B / 2 pairs; the order is random, so the neighbours are.
    Mixed are the pooled features of the tower wherever a head takes one vector an image or a
    caption, as in the paper. Of other heads what they give is mixed, before it is brought to unit
    length. Most end in a linear layer after the pooling, with which mixing commutes (lambda +
    (1 - lambda) = 1, so the bias does too): this is exactly mixing the vectors that this layer
    takes. With a linear head these are the pooled features again; with a token MLP, where captions
    of different lengths have no tokens in common to mix, the mean of its last hidden activations
    over a caption's tokens.

    Attributes:
      mixup: Beta's alpha; 1 draws lambda uniformly, smaller values keep near 0 and 1; 0 is off.
      noise: standard deviation of Gaussian noise on each feature vector (an image's pooled
        features, a token's encoding), in units of the root mean square of that vector's own
        elements, which for standardised features is 1 on average.
      dropout: rate at which elements of these vectors are zeroed and the rest scaled up.

    References:
      Vouitsis et al., "Data-Efficient Multimodal Fusion on a Single GPU", arXiv 2312.10144.
    """

    mixup: float = 0.0
    noise: float = 0.0
    dropout: float = 0.0

    def perturb(
        self, image: ImageFeatures, text: TextFeatures, rng: Array
    ) -> tuple[ImageFeatures, TextFeatures]:
        """Noise, then dropout, on the features of frozen towers; raw inputs stay as they are."""
        if not (self.noise or self.dropout):
            return image, text
        keys = jax.random.split(jax.random.fold_in(rng, _FEATURES))
        if image.pooled is not None:
            image = image.replace(pooled=self._perturbed(image.pooled, keys[0]))
        if text.packed is not None:
            tokens = self._perturbed(text.packed.tokens, keys[1])
            text = text.replace(packed=text.packed.replace(tokens=tokens))
        elif text.tokens is not None:
            text = text.replace(tokens=self._perturbed(text.tokens, keys[1]))
        return image, text

    def weight(self, rng: Array) -> Float[Array, ""]:
        """The step's lambda."""
        return jax.random.beta(jax.random.fold_in(rng, _MIXUP), self.mixup, self.mixup)

    def _perturbed(self, x: Float[Array, "*n d"], key: Array) -> Float[Array, "*n d"]:
        noise_key, dropout_key = jax.random.split(key)
        x = x.astype(jnp.float32)
        if self.noise:
            unit = jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True))  # Padding is zero and stays.
            x = x + self.noise * unit * jax.random.normal(noise_key, x.shape)
        if self.dropout:
            keep = jax.random.bernoulli(dropout_key, 1 - self.dropout, x.shape)
            x = jnp.where(keep, x / (1 - self.dropout), 0)
        return x


def mix(
    x: Float[Array, "n E"], weight: Float[Array, ""], positives: int = 1
) -> Float[Array, "m E"]:
    """Each record with an even number mixed with the next: `weight` of the first, the rest of it.

    Neighbours, since under a mesh they lie on one device.

    Args:
      x: f32 [B * P, E].
      weight: lambda.
      positives: P, rows of a record; the p-th is mixed with the next record's p-th.

    Returns:
      f32 [B / 2 * P, E].
    """
    pairs = x.reshape(-1, 2, positives, x.shape[-1])
    return (weight * pairs[:, 0] + (1 - weight) * pairs[:, 1]).reshape(-1, x.shape[-1])


def mixed_ids(ids: Int[Array, "B *c"], weight: Float[Array, ""]) -> Int[Array, "B/2 *c"]:
    """The ids of mixed pairs: those of the record with the larger weight.

    Two mixed pairs that share the record which makes up most of them are not negatives of each
    other; sharing the smaller part only, they are. At weights 0 and 1 this is the rule of pairs
    that are not mixed. Within an epoch no record comes twice, and the question does not arise.
    """
    pairs = ids.reshape(-1, 2, *ids.shape[1:])
    return jnp.where(weight >= 0.5, pairs[:, 0], pairs[:, 1])


def from_config(config: LatentConfig) -> Latent | None:
    """The config's `latent` group, None where everything is off."""
    latent = Latent(mixup=config.mixup, noise=config.noise, dropout=config.dropout)
    return latent if latent != Latent() else None


def check_batch(latent: Latent | None, train: TrainConfig, devices: int) -> None:
    """Raises UserError for a `train` group whose batch cannot be mixed in pairs on every device."""
    if latent is None or not latent.mixup:
        return
    for key, pairs in (("batch", train.batch), ("micro_batch", train.micro_batch)):
        if pairs % (2 * devices):
            up = -(-pairs // (2 * devices)) * 2 * devices
            raise UserError(
                f"config.train.{key}: latent.mixup mixes pairs of pairs, and {pairs} / 2 does not "
                f"divide over the {devices} devices; write {up}"
            )
