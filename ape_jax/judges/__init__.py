"""Outside judges: a run in the form that other people's evaluations expect.

`as_open_clip` gives it the face of an open_clip model, and `in_clip_benchmark` makes it a model
type of clip_benchmark's own command. The towers stay in JAX; torch is imported when it is needed.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

from ape_jax.errors import UserError, install

if TYPE_CHECKING:
    from ape_jax.judges.open_clip_model import OpenClipModel
    from ape_jax.runs.encoder import Encoder

__all__ = ["as_open_clip"]


def as_open_clip(model: Encoder | str | os.PathLike[str]) -> OpenClipModel:
    """A run as an open_clip model: a torch module with a `transform` and a `tokenizer`.

    Example:
      model = judges.as_open_clip("runs/demo").eval()
      z = model.encode_image(torch.stack([model.transform(pil_image)]))
      t = model.encode_text(model.tokenizer(["a cat", "ein Hund"]))

    Args:
      model: from `ape_jax.load`, or the directory to load: a run, or what was exported of it as
        `jax`.

    Raises:
      UserError: torch is not installed, the run takes vectors and not images and texts, or as
        `ape_jax.load`.
    """
    if importlib.util.find_spec("torch") is None:
        raise UserError(
            "torch is not installed, which an open_clip model's tensors are of; "
            f"run {install('judges')}"
        )
    from ape_jax.judges.open_clip_model import OpenClipModel
    from ape_jax.runs import encoder

    return OpenClipModel(model if isinstance(model, encoder.Encoder) else encoder.load(model))
