"""Texts through sentence-transformers: its own pipeline, prompts included, or its tokens."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from ape_jax.errors import UserError
from ape_jax.towers.torch import libraries
from ape_jax.towers.torch.hf_texts import checked
from ape_jax.towers.torch.running import Running, array, count_parameters, mask_array


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StTexts:
    """An `OutsideEncoder` of texts.

    Attributes:
      spec: of the tower.
      model: a SentenceTransformer.
      running: how the model is run.
      prompt: put in front of each text; None is the model's own default prompt.
    """

    spec: str
    model: Any
    running: Running
    prompt: str | None = None

    def prepare(self, items: Sequence[Any]) -> dict[str, Any]:
        """The texts themselves: the library's pipeline begins with them."""
        return {"texts": checked(items)}

    def own(self, batch: Mapping[str, Any]) -> Float32[np.ndarray, "b e"]:
        """Output of `SentenceTransformer.encode`."""
        texts = list(batch["texts"])
        with self.running():
            found = self.model.encode(
                texts,
                prompt=self._prompt,
                batch_size=len(texts),
                show_progress_bar=False,
                convert_to_tensor=True,
            )
        return array(found)

    def tokens(
        self, batch: Mapping[str, Any], layer: int
    ) -> tuple[Float32[np.ndarray, "b t d"], Bool[np.ndarray, "b t"]]:
        """Output of the first module, the Transformer, with the prompt in front of each text."""
        if layer != -1:
            raise UserError(
                f"layer is {layer}; {self.spec} gives its output alone: write -1, or torch:hf: for "
                "hidden states"
            )
        features = self.features(batch["texts"])
        with self.running():
            out = self.model[0](dict(features))
        if "token_embeddings" not in out or "attention_mask" not in out:
            raise UserError(
                f"{self.spec} has no tokens: its first module is {type(self.model[0]).__name__}; "
                "write text.pooling='own' and a head on one vector"
            )
        return array(out["token_embeddings"]), mask_array(out["attention_mask"])

    def features(self, texts: Sequence[str]) -> dict[str, Any]:
        """What the first module takes: `input_ids` and `attention_mask` of a Transformer."""
        texts = list(texts)
        if hasattr(self.model, "preprocess"):
            made = self.model.preprocess(texts, prompt=self._prompt)
        else:  # Up to version 5.
            made = self.model.tokenize([(self._prompt or "") + text for text in texts])
        tensors = {name: value for name, value in made.items() if hasattr(value, "to")}
        return {**made, **{name: x.to(self.running.device) for name, x in tensors.items()}}

    @functools.cached_property
    def _prompt(self) -> str | None:
        if self.prompt is not None:
            return self.prompt or None
        name = getattr(self.model, "default_prompt_name", None)
        return self.model.prompts.get(name) if name is not None else None

    def lengths(self, texts: Sequence[str]) -> Int64[np.ndarray, "b"]:
        """Tokens of each text, prompt included, before any truncation."""
        texts = checked(texts)
        features = self.features(texts)
        if "attention_mask" not in features:
            return np.ones(len(texts), np.int64)
        found = features["attention_mask"].sum(dim=1).cpu().numpy().astype(np.int64)
        full = np.flatnonzero(found >= self.max_length)
        if len(full):  # Whether they were cut, only their own tokens say.
            with libraries.quiet():
                whole = [(self._prompt or "") + texts[i] for i in full]
                ids = self.model.tokenizer(whole, truncation=False)["input_ids"]
            found[full] = np.maximum(found[full], [len(row) for row in ids])
        return found

    @property
    def max_length(self) -> int:
        """Longer texts are cut to so many tokens."""
        return int(self.model.max_seq_length or 10**4)

    def pools(self) -> bool:
        """True: pooling is among its modules."""
        return True

    def depth(self) -> int:
        """0: hidden states are not read."""
        return 0

    def title(self) -> str:
        """The library and the class of the model."""
        return "sentence-transformers " + ", ".join(type(module).__name__ for module in self.model)

    def parameters(self) -> int:
        """Number of the model's parameters."""
        return count_parameters(self.model)

    def settings(self) -> Mapping[str, str]:
        """The prompt and the length, and the number format; all else is in the tower's files."""
        return {
            "maximum length": str(self.max_length),
            "prefix": repr(self._prompt or ""),
            **self.running.settings(),
        }

    def versions(self) -> Mapping[str, str]:
        """Versions of torch, transformers and sentence-transformers."""
        return libraries.versions("st")


def read(
    spec: str,
    path: Path,
    running: Running,
    *,
    code: bool,
    max_length: int | None,
    prefix: str | None,
) -> StTexts:
    """Reads a SentenceTransformer.

    Args:
      spec: of the tower, for messages.
      path: the directory.
      running: how the model is run.
      code: whether the directory's own code may be run.
      max_length: of texts, in tokens; None is the model's own.
      prefix: the prompt in front of each text; None is the model's default prompt.

    Raises:
      UserError: sentence-transformers cannot read it, or `max_length` is longer than it takes.
    """
    library = libraries.module("st", spec)
    if not (path / "modules.json").is_file():
        raise UserError(
            f"{path} holds no modules.json, so it is no SentenceTransformer; write "
            f"{spec.replace('torch:st:', 'torch:hf:')!r}"
        )
    with libraries.loading(spec, "sentence-transformers cannot read the model"):
        model = library.SentenceTransformer(
            str(path),
            device=str(running.device),
            trust_remote_code=code,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )
    most = model.max_seq_length
    if max_length is not None:
        if most is not None and max_length > most:
            raise UserError(
                f"max_length is {max_length}; this tower takes texts of {most} tokens at most"
            )
        model.max_seq_length = max_length
    return StTexts(spec=spec, model=running.placed(model), running=running, prompt=prefix)
