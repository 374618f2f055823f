"""Puts an exported model on the Hugging Face hub, by the hub's own client.

Uploaded is what an export writes and nothing else: a folder with any other file in it is refused.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import os
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from ape_jax.errors import UserError
from ape_jax.exporters.publish import facts as card_facts
from ape_jax.storage import files as storage

_WRITTEN = (
    *("README.md", "config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "modules.json"),
    *("sentence_bert_config.json", "config_sentence_transformers.json"),
    *("modeling_ape.py", "processing_ape.py", "essential_ape.py", "checksums_ape.py"),
    "SHA256SUMS",
    *("*.safetensors", "*.onnx", "*.onnx.data", "*.stablehlo"),
    *("*_tower_NOTICE*", "*_tower_LICENSE*", "*_tower_LICENCE*"),
)
# Of `--format jax`, which is a work directory with its towers in it.
_WRITTEN_JAX = (
    *("summary.json", "checkpoints/*", "towers/*.json", "towers/*.safetensors", "towers/*.npz"),
    *("towers/*.txt", "towers/*.model", "towers/*NOTICE*", "towers/*LICENSE*", "towers/*LICENCE*"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Upload:
    """Files of an export that go to the hub.

    Attributes:
      folder: the export.
      files: their paths in it, in order.
      card: content of README.md as it is uploaded, with the repository's name in it.
      missing: keys that the card does not state.
    """

    folder: Path
    files: tuple[str, ...]
    card: str
    missing: tuple[str, ...]

    def lines(self) -> list[str]:
        """Each file with its size, and the sum."""
        sizes = [(self.folder / name).stat().st_size for name in self.files]
        rows = [f"{size:>15,}  {name}" for name, size in zip(self.files, sizes)]
        return [*rows, f"{sum(sizes):>15,}  bytes in {len(sizes)} files"]


def check_repo(repo: str) -> None:
    """Checks the name of a repository.

    Raises:
      UserError: where it is none.
    """
    try:
        huggingface_hub.utils.validate_repo_id(repo)
    except HFValidationError as error:
        reason = str(error).splitlines()[0].rstrip(".: ")
        raise UserError(f"--repo: {reason}; write USER/NAME") from None
    if "/" not in repo:
        raise UserError(f"--repo: expected USER/NAME, found {repo!r}")


def gather(folder: str | os.PathLike[str], repo: str, facts: card_facts.Facts) -> Upload:
    """What would be uploaded; nothing is sent.

    Args:
      folder: an export.
      repo: USER/NAME on the hub.
      facts: what the card says beside what it holds.

    Raises:
      UserError: for a folder that is no export, or holds files that no export writes.
    """
    path = Path(folder).absolute()
    if not path.is_dir():
        raise UserError(f"--export: there is no folder {path}; ape-jax export writes one")
    if (path / "checkpoints").exists() and not (path / "towers").exists():
        raise UserError(
            f"--export: {path} is the work directory of a run; write --workdir in its place"
        )
    if not (path / "README.md").is_file() or not (path / "config.json").is_file():
        raise UserError(
            f"--export: {path} is no export (it has no README.md and config.json); ape-jax export "
            "writes one"
        )
    patterns = _WRITTEN + (_WRITTEN_JAX if (path / "towers").is_dir() else ())
    files = [str(x.relative_to(path)) for x in sorted(path.rglob("*")) if not x.is_dir()]
    other = [name for name in files if not _is_written(path / name, name, patterns)]
    if other:
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        raise UserError(
            f"--export: {path} holds {other[0]}{more}, which no export writes; nothing is "
            "uploaded before you have moved that away"
        )
    content = storage.read_text(path / "README.md")
    card = card_facts.completed(content, facts, repo, repo=True)
    return Upload(
        folder=path, files=tuple(files), card=card, missing=tuple(card_facts.missing(card))
    )


def push(upload: Upload, repo: str, private: bool, endpoint: str | None = None) -> str:
    """Creates the repository where it is not there yet, and uploads in one commit.

    Args:
      upload: of `gather`.
      repo: USER/NAME on the hub.
      private: whether a new repository is seen by its owner alone.
      endpoint: of the hub; None is the client's own, $HF_ENDPOINT.

    Returns:
      The address of the commit.

    Raises:
      UserError: without a token, or where the hub refuses or cannot be reached.
    """
    if not huggingface_hub.get_token():
        raise UserError(
            "there is no token of the hub on this machine; run `hf auth login`, or set HF_TOKEN"
        )
    api = HfApi(endpoint=endpoint, library_name="ape_jax")
    try:
        # Private or not is settled when a repository is made; one that is there stays as it is.
        api.create_repo(repo, private=private or None, exist_ok=True)
        if private and not api.model_info(repo).private:
            raise UserError(
                f"--private: {repo} is there already, and public; make it private on the hub "
                "first, or leave --private out"
            )
        message = "Upload by ape_jax"
        return api.create_commit(repo, _operations(upload), commit_message=message).commit_url
    except UserError:
        raise
    except HfHubHTTPError as error:
        reason = error.server_message or f"status {error.response.status_code}"
        hint = "check --repo and what your token may do (it needs `write`)"
        raise UserError(f"--repo: the hub refused {repo} ({_line(reason)}); {hint}") from error
    except Exception as error:  # The client raises httpx's, OSError and ValueError.
        raise UserError(f"--repo: {repo} could not be uploaded ({_line(str(error))})") from error


def _operations(upload: Upload) -> list[CommitOperationAdd]:
    return [
        CommitOperationAdd(
            name, upload.card.encode() if name == "README.md" else upload.folder / name
        )
        for name in upload.files
    ]


def _is_written(path: Path, name: str, patterns: Sequence[str]) -> bool:
    """Whether an export writes a file of this name; links lead elsewhere."""
    if path.is_symlink():
        return False
    return any(
        fnmatch.fnmatchcase(name, pattern) and ("/" in pattern or "/" not in name)
        for pattern in patterns
    )


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
