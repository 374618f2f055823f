"""Zero-shot classification: class names and templates to class embeddings, top-1 and top-5."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from ape_jax import arguments
from ape_jax.errors import UserError, whole_number
from ape_jax.evaluators.prompts import fill, resolve_templates
from ape_jax.evaluators.ranks import check_embeddings, first_hit_rank

TOP = (1, 5)
_OUTPUT = "the output of encode_text for class prompts"


def class_embeddings(
    encode_text: Callable[[list[str]], Float[np.ndarray, "k e"]],
    classnames: Sequence[str] | Mapping[Any, str],
    templates: Sequence[str],
    *,
    batch: int = 1024,
) -> Float[np.ndarray, "C e"]:
    """Embeds each class as the normalised mean of its normalised prompt embeddings.

    Example:
      >>> import numpy as np
      >>> def encode(texts):
      ...     return np.array([[len(text), 1.0] for text in texts], np.float32)
      >>> class_embeddings(encode, ["cat", "{dog}"], ["{}", "a {}"]).shape
      (2, 2)

    Args:
      encode_text: function of k texts that returns embeddings, float [k, e], of any length.
      classnames: the C names, taken literally (braces in them are safe); of a
        dictionary its values.
      templates: prompts with one "{}" each, as from `prompts.resolve_templates`.
      batch: number of prompts in every call but the last, so that a compiled encoder sees one
        shape.

    Returns:
      float32 [C, e], unit length.

    Raises:
      UserError: if there are no names or templates, or an embedding is not finite.

    References:
      Radford et al., `Learning Transferable Visual Models From Natural Language Supervision
      <https://arxiv.org/abs/2103.00020>`_, 2021 (section 3.1.4: prompt ensembling over embeddings).
    """
    if not callable(encode_text):
        raise UserError(
            f"encode_text: expected a function of texts, found {type(encode_text).__name__}"
        )
    names = classnames.values() if isinstance(classnames, Mapping) else classnames
    classnames = arguments.texts(names, "classnames", "class names")
    if not all(name.strip() for name in classnames):
        raise UserError("classnames: expected class names, found an empty one")
    templates = resolve_templates(arguments.texts(templates, "templates", "templates"))
    batch = whole_number(batch, "batch")
    total = len(classnames) * len(templates)
    sums: np.ndarray | None = None
    for start in range(0, total, batch):
        # Class-major: prompt p is template p % T of class p // T.
        where, which = np.divmod(np.arange(start, min(start + batch, total)), len(templates))
        prompts = [fill(templates[t], classnames[c]) for c, t in zip(where, which)]
        z = check_embeddings(_OUTPUT, encode_text(prompts)).astype(np.float64)
        if len(z) != len(prompts):
            raise UserError(
                f"{_OUTPUT} has {len(z)} rows for {len(prompts)} texts; it needs one each"
            )
        if sums is None:
            sums = np.zeros((len(classnames), z.shape[1]))
        np.add.at(sums, where, _unit(z))
    assert sums is not None  # total >= 1
    return _unit(sums).astype(np.float32)


def zeroshot_metrics(
    zimg: Float[np.ndarray, "n e"],
    zclass: Float[np.ndarray, "C e"],
    labels: Integer[np.ndarray, " n"],
) -> dict[str, float]:
    """Computes the top-1 and top-5 accuracy of nearest-class classification.

    Classes of equal score rank by index, the lower first, so top-1 is the accuracy of `argmax`.
    clip_benchmark's `accuracy` uses `torch.topk`, which does not define the order of equal scores
    (see `retrieval.retrieval_metrics`); the results agree unless they depend on that order. Equal
    scores do occur: two pairs of ImageNet classes share a name ("missile", "sunglasses") and thus
    an embedding; images of both classes are assigned to the first.

    With fewer than five classes top-5 is 1, where clip_benchmark has NaN.

    Example:
      >>> import numpy as np
      >>> z = np.eye(3, dtype=np.float32)
      >>> metrics = zeroshot_metrics(z, z, np.array([0, 1, 0]))
      >>> round(metrics["top1"], 3), metrics["top5"]
      (0.667, 1.0)

    Args:
      zimg: image embeddings, float32 [n, e], unit length.
      zclass: class embeddings, float32 [C, e], unit length.
      labels: the class of each image, integer [n] in [0, C).

    Returns:
      `top1` and `top5`, both in [0, 1].

    Raises:
      UserError: if an array is empty, misshapen or not finite, or a label is out of range.
    """
    zimg = check_embeddings("zimg", zimg)
    zclass = check_embeddings("zclass", zclass, width=zimg.shape[1])
    labels = arguments.real_array(labels, "labels")
    if labels.shape != (len(zimg),) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"labels has shape {labels.shape} and type {labels.dtype}; it needs one integer, the "
            f"index of a class, for each of the {len(zimg)} images"
        )
    bad = (labels < 0) | (labels >= len(zclass))
    if bad.any():
        raise UserError(
            f"labels[{bad.argmax()}] is {labels[bad.argmax()]}; it must name one of the "
            f"{len(zclass)} classes, 0 to {len(zclass) - 1}"
        )
    ranks = first_hit_rank(zimg, zclass, labels, np.arange(len(zclass)))
    return {f"top{k}": float(np.mean(ranks <= k)) for k in TOP}


def _unit(z: Float[np.ndarray, "n e"]) -> Float[np.ndarray, "n e"]:
    # The floor is torch's F.normalize's: a zero vector stays zero and does not become NaN.
    return z / np.maximum(np.linalg.norm(z, axis=-1, keepdims=True), 1e-12)
