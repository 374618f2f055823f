"""A run with the face of an open_clip model: tensors in, tensors out, JAX between them.

The face is that of open_clip 3.3's `CustomTextCLIP`, its image transforms and its tokenizers, as
far as evaluations use them (https://github.com/mlfoundations/open_clip, `src/open_clip/model.py`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int

from ape_jax.errors import UserError
from ape_jax.images.decode import load_image
from ape_jax.images.transforms import AsDecoded, ImageTransform
from ape_jax.runs.embed import image_batches, token_id_batches, with_language
from ape_jax.runs.encoder import Encoder
from ape_jax.towers.outside import OutsidePrepare
from ape_jax.towers.precomputed import VectorPrepare
from ape_jax.towers.text.tokens import TextPrepare

# At padded places of a token tensor. No tokenizer has it, so that the mask can be read off the ids;
# a tower's own padding id may stand for a word as well (CLIP's, GPT-2's).
PAD = -1


@dataclasses.dataclass(frozen=True)
class PixelTransform:
    """An image as any PIL image -> the image tower's input, f32 [3, S, S]. Knows nothing of JAX.

    Attributes:
      transform: the tower's own.
      background: RGB under transparent pixels.
    """

    transform: ImageTransform
    background: tuple[int, int, int]

    def __call__(self, image: Any) -> Float[torch.Tensor, "3 s s"]:
        """Raises UserError for what is no image."""
        pixels = self.transform(load_image(image, background=self.background))
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Texts -> token ids i64 [n, T], all of one length, as open_clip's tokenizers.

    Attributes:
      prepare: the text tower's own.
    """

    prepare: TextPrepare

    @property
    def context_length(self) -> int:
        """The longest text, in tokens."""
        return self.prepare.max_length

    def __call__(
        self, texts: str | Sequence[str], context_length: int | None = None
    ) -> Int[torch.Tensor, "n t"]:
        """Token ids with `PAD` behind a text; one that is too long is cut.

        Args:
          texts: one or several.
          context_length: another T.

        Raises:
          UserError: there is no text, or something that is none.
        """
        texts = [texts] if isinstance(texts, str) else texts
        batch = self.prepare(texts, context_length or self.context_length)
        return torch.from_numpy(np.where(batch["mask"], batch["ids"], PAD).astype(np.int64))


class OpenClipModel(torch.nn.Module):
    """See `as_open_clip`. No gradient goes through it.

    Embeddings have the device of the inputs and the type of the module, f32 unless it is changed
    (`model.double()`); the towers compute as the run's config says, whatever autocast says.

    Attributes:
      transform: PIL image -> f32 [3, S, S].
      tokenizer: texts -> i64 [n, T].
      context_length: T.
      logit_scale: the natural logarithm of the inverse temperature, as open_clip keeps it.
      logit_bias: that of the sigmoid loss; None where there is none.
      output_dict: whether a call gives a dictionary or a tuple.
    """

    def __init__(self, encoder: Encoder, output_dict: bool = False):
        for side, prepare in (("image", encoder.transform), ("text", encoder.prepare)):
            if isinstance(prepare, VectorPrepare):
                raise UserError(
                    f"{side}.tower: the run takes given vectors on the {side} side, which no "
                    "outside judge has; judge a run on real towers"
                )
            if isinstance(prepare, AsDecoded | OutsidePrepare):
                raise UserError(
                    f"{side}.tower: {encoder.config.side(side).tower!r} prepares its inputs in its "
                    "own library, and a judge hands over pixels and ids; write ape_jax.evaluate"
                )
        super().__init__()
        self._encoder, self.output_dict = encoder, output_dict
        background = encoder.config.data.background
        self.transform = PixelTransform(encoder.transform, background)
        self.tokenizer = Tokenizer(encoder.prepare)
        self.context_length = self.tokenizer.context_length
        # Parameters, since others ask for the device of the first one; there are no more in torch.
        self.logit_scale = _fixed(math.log(encoder.scale))
        self.logit_bias = None if encoder.bias is None else _fixed(encoder.bias)

    def encode_image(
        self, image: Float[torch.Tensor, "b 3 s s"], normalize: bool = False
    ) -> Float[torch.Tensor, "b e"]:
        """Embeddings of images that `transform` has prepared.

        Args:
          image: the images.
          normalize: open_clip's flag; they are of unit length either way.

        Raises:
          UserError: for a tensor of another shape.
        """
        size = self.transform.transform.size
        if image.ndim != 4 or tuple(image.shape[1:]) != (3, size, size):
            raise UserError(
                f"encode_image takes a tensor [B, 3, {size}, {size}], found {list(image.shape)}; "
                "make it with the model's transform"
            )
        pixels = image.detach().float().cpu().numpy().transpose(0, 2, 3, 1)
        batches = image_batches(pixels, self._encoder.rows)
        z = self._encoder.encode_batches("image", batches, len(pixels))
        return self._given_back(z, image.device, normalize)

    def encode_text(
        self, text: Int[torch.Tensor, "b t"], normalize: bool = False
    ) -> Float[torch.Tensor, "b e"]:
        """Embeddings of texts that `tokenizer` has prepared.

        Args:
          text: token ids, `PAD` behind a text.
          normalize: open_clip's flag; they are of unit length either way.

        Raises:
          UserError: for what does not come from the tokenizer.
        """
        ids = text.detach().cpu().numpy()
        mask = ids != PAD
        whole = ids.ndim == 2 and np.issubdtype(ids.dtype, np.integer)
        if not whole or not 0 < ids.shape[1] <= self.context_length or not mask[:, 0].all():
            raise UserError(
                f"encode_text takes token ids [B, T] with T up to {self.context_length}, found "
                f"{text.dtype} {list(ids.shape)}; make them with the model's tokenizer"
            )
        ids = np.where(mask, ids, self.tokenizer.prepare.pad_id).astype(np.int32)
        batches = token_id_batches(ids, mask, self._encoder.rows)
        if self._encoder.languages:  # Told by the script of what was tokenised.
            texts = self.tokenizer.prepare.encode.backend.decode_batch(ids)
            batches = with_language(batches, self._encoder.language_rows(texts))
        z = self._encoder.encode_batches("text", batches, len(ids))
        return self._given_back(z, text.device, normalize)

    def forward(
        self,
        image: Float[torch.Tensor, "b 3 s s"] | None = None,
        text: Int[torch.Tensor, "c t"] | None = None,
    ) -> dict[str, Any] | tuple[Any, ...]:
        """Embeddings (None for a side that is not given), scale, and bias where there is one."""
        out = {
            "image_features": None if image is None else self.encode_image(image, normalize=True),
            "text_features": None if text is None else self.encode_text(text, normalize=True),
            "logit_scale": self.logit_scale.exp(),
        }
        if self.logit_bias is not None:
            out["logit_bias"] = self.logit_bias
        return out if self.output_dict else tuple(out.values())

    def get_logits(
        self, image: Float[torch.Tensor, "b 3 s s"], text: Int[torch.Tensor, "c t"]
    ) -> tuple[Float[torch.Tensor, "b c"], Float[torch.Tensor, "c b"]]:
        """Scaled similarities of images to texts, and of texts to images."""
        logits = self.logit_scale.exp() * self.encode_image(image) @ self.encode_text(text).T
        logits = logits if self.logit_bias is None else logits + self.logit_bias
        return logits, logits.T

    def _given_back(
        self, z: Float[np.ndarray, "b e"], device: torch.device, normalize: bool
    ) -> Float[torch.Tensor, "b e"]:
        tensor = torch.from_numpy(z).to(device=device, dtype=self.logit_scale.dtype)
        return F.normalize(tensor, dim=-1) if normalize else tensor


def _fixed(value: float) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(value), requires_grad=False)
