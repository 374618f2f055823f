"""Whole evaluations of anything that encodes images and texts, on a pairs or labelled source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Integer

from ape_jax.data.labelled import Labelled, open_labelled
from ape_jax.data.pairs import Pairs
from ape_jax.data.vectors import VectorPairs
from ape_jax.evaluators import prompts, retrieval, zeroshot
from ape_jax.terminal.progress import Progress

_CHUNK = 512


@runtime_checkable
class Encoder(Protocol):
    """What is evaluated: `ape_jax.load` gives one."""

    def encode_image(self, images: Sequence[Any]) -> Float[np.ndarray, "n e"]:
        """Unit-length embeddings of images."""

    def encode_text(self, texts: Sequence[str]) -> Float[np.ndarray, "n e"]:
        """Unit-length embeddings of texts."""


def evaluate_retrieval(encoder: Encoder, pairs: Pairs) -> dict[str, float]:
    """Retrieval both ways on all images and all their captions."""
    captions = [pairs[i].captions for i in range(len(pairs))]
    owner = np.repeat(np.arange(len(pairs)), [len(texts) for texts in captions])
    vectors = pairs.text if isinstance(pairs, VectorPairs) else None
    texts = [t for group in captions for t in group] if vectors is None else vectors.split()
    zimg = encode(encoder.encode_image, lambda i: pairs[i].image, len(pairs), "images")
    ztxt = encode(encoder.encode_text, texts.__getitem__, len(texts), "captions")
    return retrieval.retrieval_metrics(zimg, ztxt, owner)


def evaluate_zeroshot(
    encoder: Encoder, labelled: Labelled, templates: Sequence[str]
) -> dict[str, float]:
    """Zero-shot top-1 and top-5 with an ensemble of prompts a class."""
    return zeroshot.zeroshot_metrics(*embed_labelled(encoder, labelled, templates))


def embed_labelled(
    encoder: Encoder, labelled: Labelled, templates: Sequence[str]
) -> tuple[Float[np.ndarray, "n e"], Float[np.ndarray, "C e"], Integer[np.ndarray, " n"]]:
    """Images, classes and the class of each image, as `zeroshot_metrics` takes them."""
    classes = zeroshot.class_embeddings(encoder.encode_text, labelled.classnames, templates)
    zimg = encode(encoder.encode_image, lambda i: labelled[i][0], len(labelled), "images")
    return zimg, classes, np.asarray([labelled[i][1] for i in range(len(labelled))])


def open_classes(spec: str, classnames: str, *, key: str) -> Labelled:
    """Labelled images as a command names them, before a model is loaded.

    Args:
      spec: as for `open_labelled`.
      classnames: of `--classnames`, as `prompts.resolve_classnames` takes it; '' takes the data's
        own names.
      key: the flag to name in messages about `spec`.

    Raises:
      UserError: as `open_labelled` and `prompts.resolve_classnames`.
    """
    names = prompts.resolve_classnames(classnames, key="--classnames") if classnames else None
    return open_labelled(spec, names, key=key)


def encode(
    run: Callable[[list[Any]], np.ndarray], item: Callable[[int], Any], count: int, what: str
) -> Float[np.ndarray, "n e"]:
    """What `run` gives for `count` items, a chunk at a time, with its progress.

    Args:
      run: encodes a list of items.
      item: gives one of them.
      count: how many there are.
      what: what to call them.
    """
    progress, parts = Progress(f"encoding {what}", count, what), []
    for start in range(0, count, _CHUNK):
        stop = min(start + _CHUNK, count)
        parts.append(run([item(i) for i in range(start, stop)]))
        progress.update(stop)
    return np.concatenate(parts)
