"""Texts as open_clip tokenises them, by `text_cfg`, with the tokenizer files of the directory.

What ftfy mends in a broken text and HTML entities ("&amp;"), which open_clip undoes, are left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ape_jax.errors import UserError
from ape_jax.towers.files import sources
from ape_jax.towers.open_clip.description import Description
from ape_jax.towers.text import token_files, tokens

if TYPE_CHECKING:
    import tokenizers

_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
_KWARGS = ("clean", "strip_sep_token")


def prepare(described: Description, config: Any, options: Mapping[str, Any]) -> tokens.TextPrepare:
    """The tokenizer of a text tower.

    Raises:
      UserError: the directory has none, or it is of a kind that is not read.
    """
    fields = described.text
    named = fields.values.get("hf_tokenizer_name")
    if not any(sources.is_there(described.directory / name) for name in _FILES):
        which = (
            f"that of {named!r}" if named else "CLIP's, such as openai/clip-vit-base-patch32 has"
        )
        raise UserError(
            f"{described.directory} holds no tokenizer.json; put the tokenizer that its text tower "
            f"was trained with there: {which}"
        )
    prepared = tokens.load_prepare(
        described.directory,
        vocab_size=config.vocab_size,
        max_length=config.max_length,
        prefix=options.get("prefix", ""),
        fills=config.attends_padding,
    )
    settings = described.directory / "tokenizer_config.json"
    sources.optional_json(settings).get("model_max_length")  # `context_length` stands above it.
    kwargs = fields.mapping("tokenizer_kwargs")
    if set(kwargs) - set(_KWARGS) or not isinstance(kwargs.get("strip_sep_token", False), bool):
        raise fields.error(f"'tokenizer_kwargs' is {kwargs!r}; only {', '.join(_KWARGS)} are read")
    if not named:  # CLIP's, whose tokenizer.json cleans texts itself.
        if kwargs.get("clean", "lower") != "lower":
            raise fields.error(f"'clean' is {kwargs['clean']!r}; CLIP's tokenizer knows 'lower'")
        return prepared
    encode: Any = prepared.encode
    _clean(encode.backend, kwargs.get("clean", "whitespace"), fields)
    if kwargs.get("strip_sep_token"):
        separator = encode.backend.token_to_id("[SEP]")
        after = tuple(0 if index == separator else index for index in prepared.after)
        prepared = dataclasses.replace(prepared, after=after)
    return prepared


def _clean(backend: tokenizers.Tokenizer, how: Any, fields: Any) -> None:
    """Makes a tokenizer clean texts first, as open_clip's function of this name does."""
    import tokenizers

    normalizers = tokenizers.normalizers
    parts = [normalizers.Replace(tokenizers.Regex(r"\s+"), " "), normalizers.Strip()]
    if how == "canonicalize":
        token_files.canonical(backend, lower=True)
        parts = [normalizers.Replace("_", " ")]
    elif how == "lower":
        parts = [*parts, normalizers.Lowercase()]
    elif how != "whitespace":
        raise fields.error(f"'clean' is {how!r}; write canonicalize, lower or whitespace")
    parts += [backend.normalizer] if backend.normalizer else []
    backend.normalizer = normalizers.Sequence(parts)
