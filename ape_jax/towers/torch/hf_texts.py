"""Texts through transformers: its tokenizer and its model; heads pool the tokens."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from ape_jax.errors import UserError
from ape_jax.towers.torch import hf_files, libraries
from ape_jax.towers.torch.hf_images import _hidden_state
from ape_jax.towers.torch.running import Running, array, count_parameters, mask_array, takes

# They were trained on texts filled up to the full length, whose padding is not masked.
_FILLED = ("siglip", "siglip_text_model", "siglip2", "siglip2_text_model")
_USUAL_LENGTH = 512
_NO_LIMIT = 10**6  # Tokenizers say 1e30 where they know no limit.


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class HfTexts:
    """An `OutsideEncoder` of texts.

    Attributes:
      spec: of the tower.
      loaded: the model.
      tokenizer: transformers' tokenizer.
      running: how the model is run.
      max_length: longer texts are cut to so many tokens.
      prefix: put in front of each text.
    """

    spec: str
    loaded: hf_files.Loaded
    tokenizer: Any
    running: Running
    max_length: int
    prefix: str = ""

    @property
    def fills(self) -> bool:
        """Whether every text is filled up to `max_length`, padding being read like words."""
        return self.loaded.config.model_type in _FILLED

    def prepare(self, items: Sequence[Any]) -> dict[str, Any]:
        """Texts as the model's input, padded to the longest of them."""
        texts = [self.prefix + text for text in checked(items)]
        filled = self.tokenizer.pad_token is not None  # Texts of one length need no padding.
        batch = self._tokenised(texts, self.max_length, "max_length" if self.fills else filled)
        if batch["input_ids"].shape[1] < self._least:
            batch = self._tokenised(texts, self._least, "max_length")
        if self.fills:
            batch["attention_mask"] = np.ones_like(batch["attention_mask"])
        left = batch["attention_mask"].any(axis=1)
        if not left.all():
            empty = str(items[int(left.argmin())])[:80]
            raise UserError(f"the tokenizer leaves nothing of the text {empty!r}; leave it out")
        return batch

    def _tokenised(self, texts: list[str], length: int, padding: Any) -> dict[str, np.ndarray]:
        made = self.tokenizer(
            texts,
            truncation=True,
            max_length=length,
            padding=padding,
            return_attention_mask=True,
            return_tensors="np",
        )
        return {name: np.asarray(value) for name, value in made.items()}

    @property
    def _least(self) -> int:
        """Places that the model needs: CANINE's shorten texts first."""
        return getattr(self.loaded.config, "downsampling_rate", 1)

    def lengths(self, texts: Sequence[str]) -> Int64[np.ndarray, "b"]:
        """Tokens of each text, special ones included, before any truncation."""
        if self.fills:
            return np.full(len(texts), self.max_length)
        with libraries.quiet():  # A text beyond the limit is not an error here.
            made = self.tokenizer([self.prefix + text for text in checked(texts)])
        return np.array([len(ids) for ids in made["input_ids"]])

    def tokens(
        self, batch: Mapping[str, Any], layer: int
    ) -> tuple[Float32[np.ndarray, "b t d"], Bool[np.ndarray, "b t"]]:
        """The last hidden state, or another, and the attention mask."""
        out = self._run(batch, hidden=layer != -1)
        found = out.last_hidden_state if layer == -1 else _hidden_state(self.spec, out, layer)
        mask = mask_array(self.running.inputs(batch)["attention_mask"])
        if tuple(found.shape[:2]) != mask.shape:
            raise UserError(
                f"layer is {layer}; there {self.spec} has {found.shape[1]} places for "
                f"{mask.shape[1]} tokens: write another layer, -1 for its output"
            )
        return array(found), mask

    def own(self, batch: Mapping[str, Any]) -> Float32[np.ndarray, "b e"]:
        """The model's `pooler_output`."""
        return array(self._run(batch, hidden=False).pooler_output)

    def _run(self, batch: Mapping[str, Any], hidden: bool) -> Any:
        known = takes(self.loaded.model)
        free = any(p == "kwargs" for p in known)
        inputs = self.running.inputs(batch)
        if "attention_mask" not in known:  # FNet has none.
            inputs = {name: value for name, value in inputs.items() if name in known}
        if hidden:
            inputs["output_hidden_states"] = True
        if "use_cache" in known or free:
            inputs["use_cache"] = False
        with self.running():
            return self.loaded.model(**inputs)

    def pools(self) -> bool:
        """Whether the model pools as it was trained to.

        BERT's pooler is a layer for next sentences, which nobody compares texts by; what CLIP's
        kin have is their output.
        """
        if hasattr(self.loaded.model, "pooler"):
            return False
        return getattr(self._example, "pooler_output", None) is not None

    def depth(self) -> int:
        """Hidden states behind the first; 0 where the model gives none."""
        found = getattr(self._example, "hidden_states", None)
        return len(found) - 1 if found else 0

    @functools.cached_property
    def _example(self) -> Any:
        """The output for a text."""
        return self._run(self.prepare(["a cat"]), hidden=True)

    def title(self) -> str:
        """The library and the class of the model."""
        return f"transformers {type(self.loaded.model).__name__}"

    def parameters(self) -> int:
        """Number of the model's parameters."""
        return count_parameters(self.loaded.model)

    def settings(self) -> Mapping[str, str]:
        """The tokenizer's class, and the number format; its files are among those of the tower."""
        return {
            "tokenizer": type(self.tokenizer).__name__,
            "maximum length": str(self.max_length),
            "prefix": repr(self.prefix),
            **self.running.settings(),
        }

    def versions(self) -> Mapping[str, str]:
        """Versions of torch and transformers."""
        return libraries.versions("hf")


def checked(texts: Sequence[Any]) -> list[str]:
    """The texts, if they are texts.

    Raises:
      UserError: for something else.
    """
    for text in texts:
        if not isinstance(text, str):
            raise UserError(f"expected texts, found {type(text).__name__} {str(text)[:40]!r}")
    return list(texts)


def read(
    spec: str,
    path: Path,
    running: Running,
    *,
    code: bool,
    max_length: int | None,
    prefix: str | None,
) -> HfTexts:
    """Reads model and tokenizer.

    Args:
      spec: of the tower, for messages.
      path: the directory.
      running: how the model is run.
      code: whether the directory's own code may be run.
      max_length: of texts, in tokens; None is the tokenizer's or the model's own limit.
      prefix: put in front of each text; None is none.

    Raises:
      UserError: either cannot be read, or `max_length` is longer than the model takes.
    """
    loaded = hf_files.load(spec, path, "text", code=code)
    transformers = libraries.module("hf", spec)
    with libraries.loading(spec, "transformers cannot read the tokenizer"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            path, trust_remote_code=code, local_files_only=True
        )
    model = running.placed(loaded.model)
    return HfTexts(
        spec=spec,
        loaded=dataclasses.replace(loaded, model=model),
        tokenizer=tokenizer,
        running=running,
        max_length=_max_length(loaded, tokenizer, max_length),
        prefix=prefix or "",
    )


def _max_length(loaded: hf_files.Loaded, tokenizer: Any, asked: int | None) -> int:
    """Tokens of the longest text.

    Raises:
      UserError: the message begins with the option.
    """
    config = getattr(loaded.model, "config", loaded.config)
    try:
        places = getattr(config, "max_position_embeddings", None) or _NO_LIMIT
    except NotImplementedError:  # XLNet's way to say that there is no limit.
        places = _NO_LIMIT
    for name, module in loaded.model.named_modules():
        # RoBERTa's kin count positions from behind the padding's id.
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None):
            places = min(places, len(module.weight) - module.padding_idx - 1)
    most = min(places, getattr(tokenizer, "model_max_length", _NO_LIMIT))
    if asked is None:
        return int(most) if most < _NO_LIMIT else _USUAL_LENGTH
    if asked > most:
        raise UserError(f"max_length is {asked}; this tower takes texts of {most} tokens at most")
    return asked
