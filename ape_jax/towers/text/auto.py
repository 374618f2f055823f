"""The tokenizer of a folder as transformers.AutoTokenizer makes it, kept for the next time.

Which tokenizer a folder describes follows from its tokenizer.json, tokenizer_config.json,
special_tokens_map.json, config.json, and from rules about classes that only transformers knows. So
transformers makes it; its code takes seconds to import, so what it made is kept in the cache folder
under a hash of all that it depends on. Code of the folder is never run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ape_jax.errors import UserError
from ape_jax.storage import disk, files, sealed
from ape_jax.towers.files import reading, sections, sources
from ape_jax.towers.text import guard

if TYPE_CHECKING:
    import tokenizers

# What AutoTokenizer may read, by name.
_FILES = (
    "*.json",
    "*.model",
    "*.tiktoken",
    "merges.txt",
    "vocab.txt",
    "*.codes",
)
_WEIGHTS = ("model.safetensors.index.json",)
_LARGEST = 128 * 2**20  # XLM-R's tokenizer.json, the largest of the supported families', has 17 MB.
_WORTH_KEEPING = 64 * 2**10  # Bytes of files; smaller vocabularies are those of tests.
# Raised by hand when a change here changes what is kept.
_VERSION = "1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoTokens:
    """A tokenizer and the settings that are no part of it.

    Attributes:
      backend: the Rust tokenizer, without truncation and padding of its own.
      pad_id: the id at padded positions; None where no token is declared.
      cuts_left: a text that is too long loses its beginning.
      pads_left: padding stands before a text.
    """

    backend: tokenizers.Tokenizer
    pad_id: int | None
    cuts_left: bool
    pads_left: bool


def load(directory: Path, options: Mapping[str, Any]) -> AutoTokens:
    """The tokenizer of a folder.

    Args:
      directory: the folder.
      options: of AutoTokenizer beside it, such as sentence-transformers' `tokenizer_args`.

    Raises:
      UserError: transformers cannot make it, or it is none of the tokenizers library.
    """
    place = _place(_files(directory), options)
    kept = _kept(place) if place is not None else None
    if kept is None:
        kept = _made(directory, options)
        if place is not None:
            _keep(place, kept)
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        reading.whole(directory / name)
    return _loaded(kept)


def _files(directory: Path) -> list[Path]:
    found = sorted({f for p in _FILES for f in directory.glob(p) if f.name not in _WEIGHTS})
    for path in found:
        sources.check_file(path)
        if path.stat().st_size > _LARGEST:
            raise UserError(
                f"{path}: {path.stat().st_size} bytes is too large for a tokenizer; use one of at "
                f"most {_LARGEST} bytes"
            )
    return found


def _place(paths: list[Path], options: Mapping[str, Any]) -> Path | None:
    """Where the tokenizer of these files is kept; None where it is not worth it."""
    if sum(path.stat().st_size for path in paths) < _WORTH_KEEPING:
        return None
    digest = hashlib.sha256()
    versions = [importlib.metadata.version(name) for name in ("transformers", "tokenizers")]
    digest.update(json.dumps([_VERSION, versions, dict(options)], default=repr).encode())
    for path in paths:
        content = files.read_bytes(path, most=_LARGEST)
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    try:
        return disk.cache_dir() / "tokenizers" / f"{digest.hexdigest()[:32]}.json"
    except UserError:  # There is no home directory.
        return None


def _kept(place: Path) -> dict[str, Any] | None:
    try:
        return sealed.read(place)
    except (FileNotFoundError, UserError):  # A damaged one is made again.
        return None


def _keep(place: Path, made: Mapping[str, Any]) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        sealed.write(place, made)
    except OSError:  # It only saves time.
        return


def _made(directory: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    import transformers  # Slow to import.

    own = {"local_files_only": True, "trust_remote_code": False}
    _check_template(directory / "tokenizer.json")
    with guard.one_sentence(lambda why: f"{directory}: {_refusal(why)}"):
        config = _config(directory)
        own |= {} if config is None else {"config": config}
        made = transformers.AutoTokenizer.from_pretrained(str(directory), **{**options, **own})
        backend = getattr(made, "backend_tokenizer", None)
    if backend is None:
        raise UserError(
            f"{directory}: {type(made).__name__} is written in Python and not of the tokenizers "
            f"library; write torch:hf:{directory} as the tower"
        )
    backend.no_truncation()
    backend.no_padding()
    return {
        "tokenizer": backend.to_str(),
        "split special tokens": bool(made.split_special_tokens),
        "pad": made.pad_token_id,
        "truncation side": made.truncation_side,
        "padding side": made.padding_side,
    }


def _check_template(path: Path) -> None:
    """Raises UserError for a token round texts that has no id, at which the library panics."""
    if not sources.is_there(path):
        return
    processor = files.read_json(path, most=_LARGEST).get("post_processor")
    parts = [processor, *_listed(processor, "processors")]
    for part in parts:
        known = part.get("special_tokens") if isinstance(part, Mapping) else None
        for piece in [*_listed(part, "single"), *_listed(part, "pair")]:
            token = piece.get("SpecialToken") if isinstance(piece, Mapping) else None
            named = token.get("id") if isinstance(token, Mapping) else None
            if isinstance(named, str) and not (isinstance(known, Mapping) and known.get(named)):
                raise UserError(
                    f"{path}: 'post_processor' puts {str(named)[:40]!r} round texts and has no id "
                    "for it; fetch the file again"
                )


def _listed(value: Any, key: str) -> list[Any]:
    found = value.get(key) if isinstance(value, Mapping) else None
    return found if isinstance(found, list) else []


def _config(directory: Path) -> Any:
    """A config in the place of the folder's, where that is none of transformers'."""
    import transformers

    path = directory / "config.json"
    values = sources.optional_json(path)
    if values.get("model_type") == sections.LILT:  # In transformers, another model has this name.
        text = values.get("text_config")
        text = dict(text) if isinstance(text, Mapping) else {}
        return transformers.AutoConfig.for_model(**text)
    return None if values.get("model_type") else transformers.PreTrainedConfig()


def _refusal(reason: str) -> str:
    remedy = "save it as tokenizer.json with transformers' save_pretrained"
    if any(name in reason.lower() for name in ("sentencepiece", "tiktoken", "protobuf")):
        return (
            "the tokenizer is in a file of sentencepiece, which transformers reads with that "
            f"library; pip install sentencepiece protobuf, or {remedy}"
        )
    return f"transformers cannot read the tokenizer ({reason}); {remedy}"


def _loaded(kept: Mapping[str, Any]) -> AutoTokens:
    import tokenizers

    backend = tokenizers.Tokenizer.from_str(kept["tokenizer"])
    backend.encode_special_tokens = kept["split special tokens"]
    return AutoTokens(
        backend=backend,
        pad_id=kept["pad"],
        cuts_left=kept["truncation side"] == "left",
        pads_left=kept["padding side"] == "left",
    )
