"""Evaluations of an encoder of images and texts, on pairs or labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Integer

from ape_jax.data.labelled import Labelled, open_labelled
from ape_jax.data.languages.spoken import scripts_of
from ape_jax.data.options import Reading
from ape_jax.data.pairs import Pairs
from ape_jax.data.vectors import Tokens, VectorPairs
from ape_jax.evaluators import languages, prompts, retrieval, zeroshot


@runtime_checkable
class Encoder(Protocol):
    """Encoder of images and texts, such as the result of `ape_jax.load`."""

    def encode_image(self, images: Sequence[Any]) -> Float[np.ndarray, "n e"]:
        """Unit-length embeddings of images."""

    def encode_text(self, texts: Sequence[str] | Tokens) -> Float[np.ndarray, "n e"]:
        """Unit-length embeddings of texts."""


def evaluate_retrieval(encoder: Encoder, pairs: Pairs) -> dict[str, float]:
    """Evaluates retrieval in both directions on all images and captions.

    Args:
      encoder: the model.
      pairs: images and captions.

    Returns:
      The metrics of `retrieval.retrieval_metrics`.
    """
    return retrieval.retrieval_metrics(*_embedded(encoder, pairs, _languages(encoder, pairs)))


def evaluate_languages(
    encoder: Encoder, pairs: Pairs, name: str
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Evaluates retrieval on all captions and, of a model with means of languages, on each.

    Args:
      encoder: the model.
      pairs: images and captions.
      name: of the set; a language of it is `NAME:LANGUAGE`.

    Returns:
      The metrics of `retrieval.retrieval_metrics` by name, and those of a random order.
    """
    spoken = _languages(encoder, pairs)
    zimg, ztxt, image_index = _embedded(encoder, pairs, spoken)
    found = {name: retrieval.retrieval_metrics(zimg, ztxt, image_index)}
    by_chance = {name: retrieval.chance_metrics(len(zimg), image_index)}
    if spoken is not None:
        names, index = np.unique(np.asarray(spoken), return_inverse=True)
        each = languages.by_language(zimg, ztxt, image_index, names.tolist(), index)
        found |= languages.named(name, each)
        each = languages.chance(image_index, names.tolist(), index)
        by_chance |= languages.named(name, each)
    return found, by_chance


def _languages(encoder: Encoder, pairs: Pairs) -> list[str] | None:
    """The language of each caption, or its script; None of a model without means of languages."""
    if not getattr(encoder, "languages", ()):
        return None
    known = [name for pair in pairs for name in pair.languages]
    return known or scripts_of([text for pair in pairs for text in pair.captions])


def _embedded(
    encoder: Encoder, pairs: Pairs, spoken: list[str] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings of images and of captions, and the image of each caption."""
    captions = [pairs[i].captions for i in range(len(pairs))]
    image_index = np.repeat(np.arange(len(pairs)), [len(texts) for texts in captions])
    vectors = pairs.text if isinstance(pairs, VectorPairs) else None
    texts = [t for group in captions for t in group] if vectors is None else vectors
    zimg = encoder.encode_image([pair.image for pair in pairs])
    named = any(pair.languages for pair in pairs)  # Scripts are told by the model itself.
    options: dict[str, Any] = {"language": spoken} if spoken is not None and named else {}
    return zimg, encoder.encode_text(texts, **options), image_index


def chance(pairs: Pairs) -> dict[str, float]:
    """The retrieval metrics that a random order would have.

    Args:
      pairs: images and captions.

    Returns:
      The metrics of `retrieval.chance_metrics`.
    """
    image_index = np.repeat(np.arange(len(pairs)), [len(pair.captions) for pair in pairs])
    return retrieval.chance_metrics(len(pairs), image_index)


def evaluate_zeroshot(
    encoder: Encoder, labelled: Labelled, templates: Sequence[str]
) -> dict[str, float]:
    """Evaluates zero-shot top-1 and top-5 accuracy with an ensemble of prompts per class.

    Args:
      encoder: the model.
      labelled: images with class labels, and the class names.
      templates: prompts with one "{}" each.

    Returns:
      The metrics of `zeroshot.zeroshot_metrics`.
    """
    return zeroshot.zeroshot_metrics(*embed_labelled(encoder, labelled, templates))


def embed_labelled(
    encoder: Encoder, labelled: Labelled, templates: Sequence[str]
) -> tuple[Float[np.ndarray, "n e"], Float[np.ndarray, "C e"], Integer[np.ndarray, " n"]]:
    """Returns the arguments of `zeroshot_metrics`: embeddings of images and classes, and labels."""
    classes = zeroshot.class_embeddings(encoder.encode_text, labelled.classnames, templates)
    zimg = encoder.encode_image([labelled[i][0] for i in range(len(labelled))])
    return zimg, classes, np.asarray([labelled[i][1] for i in range(len(labelled))])


def open_classes(
    spec: str, classnames: str, *, key: str, reading: Reading | None = None
) -> Labelled:
    """Opens labelled images with the class names of a command.

    Args:
      spec: name of the data set, as for `open_labelled`.
      classnames: value of `--classnames`, as for `prompts.resolve_classnames`; '' for the class
        names of the data set.
      key: the flag to name in messages about `spec`.
      reading: which columns, and what happens to rows that cannot be used; None stops at them.

    Raises:
      UserError: if there is no such data set, or no such class names.
    """
    names = prompts.resolve_classnames(classnames, key="--classnames") if classnames else None
    return open_labelled(spec, names, key=key, reading=reading)
