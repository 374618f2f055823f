"""Settings in a text tower's directory: tokenizer, lengths, prompts and pooling."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from ape_jax.errors import UserError
from ape_jax.storage import files
from ape_jax.towers.files import reading, sentence, sources
from ape_jax.towers.text import auto, guard
from ape_jax.towers.text.auto import AutoTokens

if TYPE_CHECKING:
    import tokenizers

_VOCABULARY_FILES = (
    "vocab.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
)
_EMPTY_PROMPTS = ("query", "document")  # Those that sentence-transformers has anyway.
_LONGEST = 8192
# XLM-R's tokenizer.json, the largest of the supported families', has 17 MB.
_MAX_TOKENIZER_BYTES = 128 * 2**20


def load(directory: Path) -> AutoTokens:
    """The tokenizer of a text tower's directory: AutoTokenizer's, as sentence-transformers sets it.

    Raises:
      UserError: no tokenizer files, or broken ones.
    """
    names = ("tokenizer.json", *_VOCABULARY_FILES)
    if not any(sources.is_there(directory / name) for name in names):
        raise UserError(
            f"{directory}: found no tokenizer.json and none of {', '.join(_VOCABULARY_FILES)}; "
            "put the text tower's tokenizer files beside its config.json"
        )
    modules = sentence.find(directory)
    settings = modules.settings if modules else {}
    if _is_siglip(directory):
        made = _siglip(directory)
    else:
        made = _auto(directory, settings)
    lower = settings.get("do_lower_case")
    if lower is not None and not isinstance(lower, bool):
        raise UserError(
            f"{directory}: 'do_lower_case' of sentence-transformers' settings is "
            f"{str(lower)[:60]!r}; write true or false"
        )
    if lower:
        _lower(made.backend)
    return made


def _auto(directory: Path, settings: Mapping[str, Any]) -> AutoTokens:
    try:
        return auto.load(directory, tokenizer_options(settings))
    except UserError:
        path = directory / "tokenizer.json"
        if sources.is_there(path):  # If the file is damaged, that is what to say.
            json_backend(path)
        raise


def tokenizer_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What sentence-transformers' settings of a Transformer hand to AutoTokenizer."""
    found = settings.get("tokenizer_args") or settings.get("processor_kwargs")
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise UserError(
            f"sentence_bert_config.json: 'tokenizer_args' is {found!r}; write an object"
        )
    return {key: found[key] for key in found if key not in sentence.HUB_OPTIONS}


def _is_siglip(directory: Path) -> bool:
    """Whether the tokenizer is SigLIP's in a tokenizer.json, for which transformers has no code."""
    named = _read(directory / "tokenizer_config.json").get("tokenizer_class")
    return named == "SiglipTokenizer" and sources.is_there(directory / "tokenizer.json")


def _siglip(directory: Path) -> AutoTokens:
    backend = json_backend(directory / "tokenizer.json")
    backend.no_truncation()
    backend.no_padding()
    left = _read(directory / "tokenizer_config.json").get("truncation_side") == "left"
    return AutoTokens(backend=backend, pad_id=None, cuts_left=left, pads_left=False)


def _lower(backend: tokenizers.Tokenizer) -> None:
    """Lower case before all else, as sentence-transformers does for its `do_lower_case`."""
    import tokenizers

    before, kinds = backend.normalizer, tokenizers.normalizers
    parts = list(before) if isinstance(before, kinds.Sequence) else [before] if before else []
    if not any(isinstance(part, kinds.Lowercase) for part in parts):
        backend.normalizer = kinds.Sequence([kinds.Lowercase(), *parts])


def pad_id(directory: Path, backend: tokenizers.Tokenizer) -> int:
    """The padding token's id; 0 where none is declared (the mask hides it anyway)."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        token = _read(directory / name).get("pad_token")
        token = token.get("content") if isinstance(token, Mapping) else token
        if isinstance(token, str) and (found := backend.token_to_id(token)) is not None:
            return found
    config = _read(directory / "config.json")
    for section in (config, config.get("text_config")):  # Of one tower, or of two.
        declared = section.get("pad_token_id") if isinstance(section, Mapping) else None
        if type(declared) is int and declared >= 0 and backend.id_to_token(declared) is not None:
            return declared
    known = (backend.token_to_id(token) for token in ("[PAD]", "<pad>"))
    return next((index for index in known if index is not None), 0)


def masks_padding(directory: Path) -> bool:
    """Whether the tokenizer gives a mask with its ids, as nearly all do."""
    label = directory / "tokenizer_config.json"
    names = _read(label).get("model_input_names")
    if names is not None and not isinstance(names, list):
        raise UserError(
            f"{label}: 'model_input_names' is {str(names)[:60]!r}; write a list of names"
        )
    return not isinstance(names, list) or "attention_mask" in names


def max_length(directory: Path, *, least: int, positions: int) -> int:
    """The longest sequence that texts are cut to, special tokens included.

    As in sentence-transformers: its `max_seq_length`, else the smaller of tokenizer_config.json's
    `model_max_length` and the tower's positions. Never more than the tower can take, where
    sentence-transformers fails on long texts; and where `max_seq_length` is not declared, never
    more than 8192, which is then said: rotary positions allow lengths whose attention fits no
    memory.

    Args:
      directory: of the tower.
      least: what is less than this is no length.
      positions: what the tower can take.
    """
    modules = sentence.find(directory)
    settings = modules.settings if modules else {}
    own = tokenizer_options(settings).get("model_max_length")
    for declared in (own, settings.get("max_seq_length")):
        if _is_length(declared, least):
            return int(min(declared, positions))
        if declared is not None:
            reading.assumed(
                f"{str(declared)[:40]!r} is no length of texts that is taken, of {least} or more"
            )
    # transformers writes 1e30 where a tokenizer has no limit.
    allowed = _read(directory / "tokenizer_config.json").get("model_max_length")
    if allowed is not None and not _is_length(allowed, least):
        reading.assumed(
            f"'model_max_length' {str(allowed)[:40]!r} is no length; the tower's {positions} "
            "positions are taken"
        )
    found = int(min(allowed, positions)) if _is_length(allowed, least) else positions
    if found > _LONGEST:
        reading.assumed(
            f"texts are cut to {_LONGEST} tokens, of {found} that it takes; write max_length for "
            "more"
        )
    return min(found, _LONGEST)


def _is_length(value: Any, least: int) -> TypeGuard[int | float]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and value >= least


def default_prefix(directory: Path) -> str:
    """sentence-transformers' default prompt ("query: " for E5); "" where none is declared."""
    modules = sentence.find(directory)
    root = modules.root if modules else directory
    settings = _read(root / "config_sentence_transformers.json")
    label = root / "config_sentence_transformers.json"
    prompts, name = settings.get("prompts"), settings.get("default_prompt_name")
    if name is not None and not isinstance(name, str):
        raise UserError(
            f"{label}: 'default_prompt_name' is {str(name)[:60]!r}; write a name or null"
        )
    if prompts is not None and not isinstance(prompts, Mapping):
        raise UserError(f"{label}: 'prompts' is {str(prompts)[:60]!r}; write an object")
    prompt = prompts.get(name) if prompts is not None and name is not None else None
    if isinstance(name, str) and prompt is None and name not in _EMPTY_PROMPTS:
        raise UserError(
            f"{label}: 'default_prompt_name' is {name!r}, "
            "which 'prompts' does not have; write one of its names, or null"
        )
    if name is not None and prompt is None:
        reading.assumed(f"'prompts' has nothing for {name!r}, so nothing is put before texts")
    if prompt is not None and not isinstance(prompt, str):
        raise UserError(f"{label}: the prompt {name!r} is {str(prompt)[:60]!r}; write a text")
    return prompt or ""


def json_backend(path: Path) -> tokenizers.Tokenizer:
    """A tokenizer.json, read as the tokenizer_config.json beside it says."""
    import tokenizers

    sources.check_file(path)
    if path.stat().st_size > _MAX_TOKENIZER_BYTES:
        raise UserError(
            f"{path}: {path.stat().st_size} bytes is too large for a tokenizer; "
            f"use one of at most {_MAX_TOKENIZER_BYTES} bytes"
        )
    with guard.one_sentence(lambda why: f"{path}: not a tokenizer ({why}); download it again"):
        backend = tokenizers.Tokenizer.from_file(str(path))
    settings = _read(path.with_name("tokenizer_config.json"))
    _apply_bert_settings(backend, settings)
    _split_at_spaces(backend, settings)
    if settings.get("tokenizer_class") == "SiglipTokenizer":
        canonical(backend, lower=settings.get("do_lower_case") is not False)
    return backend


def vocabulary_backend(path: Path) -> tokenizers.Tokenizer:
    """BERT's tokenizer of lower case, from its vocabulary: a token a line.

    Raises:
      UserError: no such vocabulary.
    """
    import tokenizers

    sources.check_file(path)
    lines = files.read_text(path, most=_MAX_TOKENIZER_BYTES).split("\n")
    vocabulary = {line.rstrip("\r"): index for index, line in enumerate(lines) if line.strip()}
    if "[UNK]" not in vocabulary:
        raise UserError(f"{path} has no [UNK]; it must be a vocabulary of BERT, a token a line")
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return backend


def _apply_bert_settings(backend: tokenizers.Tokenizer, settings: Mapping[str, Any]) -> None:
    """Case, accents and Chinese characters: transformers lets tokenizer_config.json overrule."""
    import tokenizers

    normalizer = backend.normalizer
    if not isinstance(normalizer, tokenizers.normalizers.BertNormalizer):
        return
    for key, name in (
        ("do_lower_case", "lowercase"),
        ("strip_accents", "strip_accents"),
        ("tokenize_chinese_chars", "handle_chinese_chars"),
    ):
        if isinstance(settings.get(key), bool):
            setattr(normalizer, name, settings[key])
    backend.normalizer = normalizer


def _split_at_spaces(backend: tokenizers.Tokenizer, settings: Mapping[str, Any]) -> None:
    """XLM-R's tokenizer drops spaces round a text; some tokenizer.json (E5's) make a token of them.

    Sentencepiece did drop them when these towers were trained, and so does transformers 5.
    """
    import tokenizers

    split = tokenizers.pre_tokenizers
    named = str(settings.get("tokenizer_class")).startswith(("XLMRoberta", "Camembert"))
    if named and isinstance(backend.pre_tokenizer, split.Metaspace):
        parts = [split.WhitespaceSplit(), backend.pre_tokenizer]
        backend.pre_tokenizer = split.Sequence(parts)


def canonical(backend: tokenizers.Tokenizer, *, lower: bool) -> None:
    """Text as SigLIP saw it: lower case, without punctuation, one space between words.

    Transformers' SiglipTokenizer does so before sentencepiece (big_vision's `canonicalize_text`);
    where tokenizer.json does it too, it makes no difference.
    """
    import tokenizers

    normalizers = tokenizers.normalizers
    punctuation = tokenizers.Regex("[" + re.escape(string.punctuation) + "]")
    parts = [normalizers.Lowercase()] if lower else []
    parts += [
        normalizers.Replace(punctuation, ""),
        normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
    ]
    parts += [normalizers.Strip(), *([backend.normalizer] if backend.normalizer else [])]
    backend.normalizer = normalizers.Sequence(parts)


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where the file is absent."""
    return sources.optional_json(path)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
