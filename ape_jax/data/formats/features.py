"""Precomputed features: pairs whose images, texts or both are vectors.

Any modality will do (audio, video, molecules): a head is trained on the vectors, and their side
needs no tower. After `features:` stands one of

    IMAGE.npy,TEXT.npy   two arrays, row i of one belonging to row i of the other
    FILE.npz             `image`, `text` and, if wanted, `text_offsets` and `owner`
    FILE.parquet         columns `image`, `text` (or `caption`, words for a text tower), and `id`

`image` is [n, d] or, for several views of each, [n, V, d]. `text` is [m, d], one vector a caption,
or token encodings: [m, T, d], flat [S, d] with `text_offsets` [m + 1], or nested lists.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32

from ape_jax.config.outside import PREFIX
from ape_jax.data.formats.features_parquet import Columns, read_parquet_columns
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.pairs import Pair
from ape_jax.data.vectors import Tokens, VectorPairs
from ape_jax.errors import UserError
from ape_jax.images.decode import ImageRef

_FORMS = "features:IMAGE.npy,TEXT.npy, features:FILE.npz or features:FILE.parquet"


def open_vectors(spec: str, key: str = "data.pairs") -> VectorPairs:
    """Opens and checks vectors.

    Args:
      spec: one of the forms above.
      key: the config key to name in messages.

    Raises:
      UserError: a missing or damaged file, wrong shapes, counts that differ, values that are not
        finite.
    """
    columns = _read(spec.removeprefix(PREFIX), spec, key)
    image = _image_vectors(columns.image, spec, key)
    counts = np.bincount(columns.image_index, minlength=len(image))
    if isinstance(columns.text, list):
        text, captions = None, columns.text
    else:
        text = _tokens(*columns.text, spec, key)
        captions = [f"vectors {i}" for i in range(len(columns.image_index))]
    _check_image_index(columns.image_index, len(image), len(captions), spec, key)
    ends = np.cumsum(counts)
    pairs = [
        Pair(
            ImageRef(image[i, 0], f"{spec} ({name})"),
            tuple(captions[end - count : end]),
            name,
        )
        for i, (name, end, count) in enumerate(
            zip(columns.ids, ends.tolist(), counts.tolist(), strict=True)
        )
    ]
    return VectorPairs(pairs, spec, image, text)


def _read(path: str, spec: str, key: str) -> Columns:
    if path.endswith(".parquet"):
        return read_parquet_columns(path, key=key)
    parts = path.split(",")
    if path.endswith(".npz"):
        arrays = _load(path, key)
        if not isinstance(arrays, Mapping):
            raise UserError(f"{key}: {path!r} is no .npz archive; save it with numpy.savez")
        unknown = set(arrays) - {"image", "text", "text_offsets", "owner"}
        if unknown or not {"image", "text"} <= set(arrays):
            raise UserError(
                f"{key}: {path!r} holds {', '.join(map(repr, sorted(arrays))) or 'nothing'}; "
                "write 'image', 'text' and, if wanted, 'text_offsets' and 'owner'"
            )
    elif len(parts) == 2 and all(part.endswith(".npy") for part in parts):
        arrays = dict(zip(("image", "text"), (_load(part, key) for part in parts), strict=True))
        if any(isinstance(array, Mapping) for array in arrays.values()):
            raise UserError(f"{key}: {path!r}: an .npy file must hold one array")
    else:
        raise UserError(f"{key}: {spec!r} is of no known form; write {_FORMS}")
    return _from_arrays(arrays, spec, key)


def _load(path: str, key: str) -> Any:
    if not os.path.isfile(path):
        raise UserError(f"{key}: there is no file {path!r}; correct the path")
    try:
        loaded = np.load(path, allow_pickle=False)
        return loaded if isinstance(loaded, np.ndarray) else {k: loaded[k] for k in loaded.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{key}: {path!r} cannot be read as plain arrays ({reason})") from error


def _from_arrays(arrays: Mapping[str, np.ndarray], spec: str, key: str) -> Columns:
    image, text = arrays["image"], arrays["text"]
    offsets = arrays.get("text_offsets")
    if text.ndim == 3 and offsets is None:  # Dense tokens: T for every caption.
        offsets = np.arange(len(text) + 1) * text.shape[1]
        text = text.reshape(-1, text.shape[-1])
    if offsets is None and text.ndim == 2:
        offsets = np.arange(len(text) + 1)
    offsets = np.asarray(offsets)
    if text.ndim != 2 or offsets.ndim != 1 or not np.issubdtype(offsets.dtype, np.integer):
        raise UserError(
            f"{key}: {spec!r}: 'text' is {list(text.shape)} of {text.dtype}; write [m, d], "
            "[m, T, d], or [S, d] with integer text_offsets [m + 1]"
        )
    count = len(offsets) - 1
    image_index = np.asarray(arrays.get("owner", np.arange(count)))
    if "owner" not in arrays and image.ndim and count != len(image):
        raise UserError(
            f"{key}: {spec!r}: {len(image)} rows of 'image' but {count} of 'text'; give as many, "
            "or an .npz with 'owner', the image of each text"
        )
    ids = [str(i) for i in range(len(image) if image.ndim else 0)]
    return Columns(image, (text, offsets), image_index, ids)


def _image_vectors(image: np.ndarray, spec: str, key: str) -> Float32[np.ndarray, "n V d"]:
    if image.ndim not in (2, 3) or 0 in image.shape or not np.issubdtype(image.dtype, np.floating):
        raise UserError(
            f"{key}: {spec!r}: 'image' is {list(image.shape)} of {image.dtype}; write floating "
            "point numbers [n, d], or [n, V, d] for several views of each"
        )
    image = image.astype(np.float32, copy=False)
    _check_finite(image, "image", spec, key)
    return image[:, None] if image.ndim == 2 else image


def _tokens(flat: np.ndarray, offsets: np.ndarray, spec: str, key: str) -> Tokens:
    offsets = offsets.astype(np.int64, copy=False)
    if 0 in flat.shape or not np.issubdtype(flat.dtype, np.floating):
        raise UserError(
            f"{key}: {spec!r}: 'text' is {list(flat.shape)} of {flat.dtype}; write floating point "
            "numbers"
        )
    if offsets[0] != 0 or offsets[-1] != len(flat) or (np.diff(offsets) < 1).any():
        raise UserError(
            f"{key}: {spec!r}: 'text_offsets' must rise from 0 to {len(flat)}, the rows of 'text', "
            "with at least one row for each caption"
        )
    flat = flat.astype(np.float32, copy=False)
    _check_finite(flat, "text", spec, key)
    return Tokens(flat, offsets)


def _check_finite(array: np.ndarray, what: str, spec: str, key: str) -> None:
    for start in range(0, len(array), 65_536):  # In blocks: a whole mask would cost memory.
        block = np.isfinite(array[start : start + 65_536])
        if not block.all():
            row = start + int(np.argwhere(~block)[0, 0])
            raise UserError(f"{key}: {spec!r}: row {row} of {what!r} is not finite; correct it")


def _check_image_index(index: np.ndarray, images: int, texts: int, spec: str, key: str) -> None:
    good = np.ndim(index) == 1 and np.issubdtype(index.dtype, np.integer) and len(index) == texts
    if not good or (np.diff(index) < 0).any() or set(index.tolist()) != set(range(images)):
        raise UserError(
            f"{key}: {spec!r}: 'owner' must name the image of each of the {texts} texts, in "
            f"ascending order, and each of the {images} images at least once"
        )


FEATURES = PairsFormat(name="features", spec="features:FILES", prefix=PREFIX, open=open_vectors)
