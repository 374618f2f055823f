"""An export's proof: real inputs of the run, encoded here and through what was written."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from jaxtyping import Float

from ape_jax.data.pairs import Pairs
from ape_jax.errors import UserError, install
from ape_jax.exporters import subprocesses
from ape_jax.images.decode import load_image
from ape_jax.runs.encoder import Encoder

LEAST_COSINE = 0.99999
MOST_DIFFERENCE = 1e-4
BATCH = 8
"""Rows that are encoded together."""
EXACT: Mapping[str, Any] = {
    "image.dtype": "float32",
    "text.dtype": "float32",
    "eval.batch": BATCH,
}
"""Config of a model that is compared: as it is, not as it is rounded, and without a large batch."""
ONNX_BATCHES = (1, 5, 64)
"""Rows that ONNX Runtime encodes together: none of them is what was traced, the last is all."""
STABLEHLO_BATCHES = (6, 64)
"""The same for the programs of jax.export, which compile anew for every size: fewer of them."""
_IMAGES, _TEXTS = 8, 15
_LONG = 512  # A text of more tokens takes memory, and proves nothing that this one does not.

Embeddings = tuple[Float[np.ndarray, "n e"], Float[np.ndarray, "m e"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """Inputs that are encoded twice.

    Attributes:
      images: references, as a pairs file names them.
      texts: of mixed lengths; the last is longer than the tower takes, unless it takes more than
        512 tokens.
    """

    images: Sequence[Any]
    texts: Sequence[str]


def choose(pairs: Pairs, longest: int) -> Inputs:
    """Images spread over the pairs, and captions from the shortest to the longest.

    Args:
      pairs: of the run.
      longest: tokens that the text tower takes.
    """
    places = np.unique(np.linspace(0, len(pairs) - 1, _IMAGES).astype(int))
    captions = sorted({c for pair in pairs for c in pair.captions}, key=lambda c: (len(c), c))
    chosen = np.unique(np.linspace(0, len(captions) - 1, _TEXTS).astype(int))
    texts = [captions[i] for i in chosen]
    # No tokenizer makes less than one token of a caption: this one is cut by most towers.
    longest = min(longest, _LONG)
    return Inputs(
        images=[pairs[int(i)].image for i in places],
        texts=[*texts, " ".join((texts * longest)[:longest])],
    )


def ours(encoder: Encoder, inputs: Inputs) -> Embeddings:
    """Embeddings by the run's own model."""
    return encoder.encode_image(inputs.images), encoder.encode_text(inputs.texts)


def torchs(directory: Path, inputs: Inputs, model_class: str, background: Any = None) -> Embeddings:
    """Embeddings by the directory, in a process that imports neither jax nor ape_jax.

    Args:
      directory: an exported one.
      inputs: what to encode.
      model_class: of transformers.
      background: given, images are made RGB on it first, for processors that do not do that.

    Raises:
      UserError: where it cannot be loaded or run.
    """
    job = {"directories": [str(directory)], "class": model_class}
    wrong = "--out: what was written cannot be run by transformers"
    out = _encoded("encode_torch.py", job, inputs, background, wrong)
    return out["image_0"], out["text_0"]


def onnx(directory: Path, inputs: Inputs) -> dict[int, Embeddings]:
    """Embeddings by ONNX Runtime on the CPU, in a process of its own without torch.

    Args:
      directory: an exported one.
      inputs: what to encode.

    Returns:
      Embeddings by the number of rows that were encoded together; texts that are encoded alone
      are not padded.

    Raises:
      UserError: where it cannot be loaded or run.
    """
    return _by_rows(directory, inputs, "onnx", ONNX_BATCHES, "ONNX Runtime")


def stablehlo(directory: Path, inputs: Inputs) -> dict[int, Embeddings]:
    """Embeddings by jax on the CPU, in a process that does not import ape_jax; as `onnx`."""
    return _by_rows(directory, inputs, "stablehlo", STABLEHLO_BATCHES, "jax")


def _by_rows(
    directory: Path, inputs: Inputs, target: str, batches: Sequence[int], by: str
) -> dict[int, Embeddings]:
    job = {"directories": [str(directory)], "batches": batches}
    wrong = f"--out: what was written cannot be run by {by}"
    out = _encoded(f"encode_{target}.py", job, inputs, None, wrong)
    return {rows: (out[f"image_0_{rows}"], out[f"text_0_{rows}"]) for rows in batches}


def _encoded(
    script: str, job: Mapping[str, Any], inputs: Inputs, background: Any, wrong: str
) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory(prefix="ape_jax_export_") as folder:
        work = Path(folder)
        images = [
            _image_file(image, work / f"{i}.png", background)
            for i, image in enumerate(inputs.images)
        ]
        encoded = {"images": images, "texts": list(inputs.texts), "out": str(work / "out.npz")}
        subprocesses.run(script, {**job, **encoded}, work, wrong)
        with np.load(work / "out.npz", allow_pickle=False) as out:
            return dict(out)


def _image_file(image: Any, path: Path, background: Any) -> str:
    """A path from which Pillow opens the image."""
    content = getattr(image, "content", image)
    if background is None and isinstance(content, bytes):
        path.write_bytes(content)
        return str(path)
    if background is None and not isinstance(content, np.ndarray):
        return os.fspath(content)
    pixels = content if background is None else load_image(image, background=background)
    PIL.Image.fromarray(pixels).save(path)
    return str(path)


def compare(ours: Embeddings, theirs: Embeddings, target: str) -> tuple[float, float]:
    """The largest difference and the least cosine over all images and texts; printed.

    Raises:
      UserError: where they are not the same embeddings.
    """
    differences, cosines = [], []
    for mine, other in zip(ours, theirs, strict=True):
        if mine.shape != other.shape:
            raise UserError(
                f"--out: embeddings are {list(other.shape)} in {target} and {list(mine.shape)} "
                "here; nothing was written"
            )
        lengths = np.linalg.norm(mine, axis=1) * np.linalg.norm(other, axis=1)
        cosines.append(((mine * other).sum(axis=1) / np.maximum(lengths, 1e-12)).min())
        differences.append(np.abs(mine - other).max())
    # NumPy's maximum of a NaN is a NaN, and no NaN passes.
    difference, cosine = float(np.max(differences)), float(np.min(cosines))
    counts = " and ".join(f"{len(z)} {what}" for z, what in zip(ours, ("images", "texts")))
    found = f"largest difference {difference:.2e}, least cosine {cosine:.7f}"
    print(f"{counts} of the run, here and in {target}: {found}")
    if not (difference <= MOST_DIFFERENCE and cosine >= LEAST_COSINE):
        raise UserError(
            f"--out: {target} does not give the run's embeddings ({found}; at most "
            f"{MOST_DIFFERENCE:.0e} and at least {LEAST_COSINE} are allowed); nothing was written"
        )
    return difference, cosine


def require(name: str, needs: Mapping[str, Sequence[str]]) -> None:
    """Raises UserError unless the modules that a format needs can be imported.

    Args:
      name: of the format.
      needs: names of modules by the extra of ape_jax that has them.
    """
    missing = {
        extra: module
        for extra, modules in needs.items()
        for module in reversed(modules)  # The first that is missing stays.
        if importlib.util.find_spec(module) is None
    }
    if (
        missing
    ):  # All extras at once: a second refusal after an install of gigabytes is one too many.
        listed = f"{' and '.join(missing.values())} {'are' if len(missing) > 1 else 'is'}"
        raise UserError(
            f"--format: {listed} not installed, without which no export for {name} is checked; "
            f"run {install(','.join(missing))}"
        )
