"""Towers on the Hugging Face hub: what is downloaded, and what to do where that fails."""

from __future__ import annotations

import re
from pathlib import Path

from ape_jax.errors import UserError

FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
# Below the folder only the modules of sentence-transformers have weights, "2_Dense".
NOT = ("[!0-9]*/*.safetensors", "onnx/*", "openvino/*", "coreml/*")
_NAME = r"\w[\w.-]*"
_SPEC = re.compile(rf"hf:({_NAME}/{_NAME})(?:@([\w./-]+))?")
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
CONVERT = (
    "a format that can run code when it is read; convert it once where you trust it: "
    "transformers.AutoModel.from_pretrained(DIR).save_pretrained(NEW_DIR) writes model.safetensors"
)


def is_name(name: str) -> bool:
    """Whether a text has the form of a repository's name, of an old one without its owner.

    >>> is_name("facebook/dinov2-small"), is_name("bert-base-uncased"), is_name("a/b/c")
    (True, True, False)

    Args:
      name: the text.
    """
    return re.fullmatch(rf"({_NAME}/)?{_NAME}", name) is not None


def snapshot(
    spec: str,
    files: tuple[str, ...] = FILES,
    ignored: tuple[str, ...] = NOT,
    *,
    written: str = "",
) -> Path:
    """Downloads the files of a tower, or finds them in the hub's cache.

    Args:
      spec: `hf:org/name[@revision]`.
      files: patterns of those that are wanted.
      ignored: patterns of those among them that are not.
      written: the spec as the user wrote it, for messages; '' where it is the same.

    Raises:
      UserError: the spec is of another form, or the files cannot be had.
    """
    parts, spec = _SPEC.fullmatch(spec), written or spec
    if parts is None:
        raise UserError(f"tower {spec!r}: write hf:org/name or hf:org/name@revision")
    return download(spec, parts[1], parts[2], files, ignored)


def download(
    spec: str,
    repository: str,
    revision: str | None,
    files: tuple[str, ...] = FILES,
    ignored: tuple[str, ...] = NOT,
) -> Path:
    """Downloads files of a repository, or finds them in the hub's cache.

    Args:
      spec: what the user wrote, for messages.
      repository: `org/name`, or the name of an old repository without its owner.
      revision: branch, tag or commit; None for the main branch.
      files: patterns of those that are wanted.
      ignored: patterns of those among them that are not.

    Raises:
      UserError: the files cannot be had.
    """
    import huggingface_hub

    try:
        path = huggingface_hub.snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(files),
            ignore_patterns=list(ignored),
        )
    except Exception as e:  # the hub raises its own, httpx's, OSError and ValueError
        raise UserError(f"tower {spec!r} {_sentence(e, repository, revision)}") from e
    if not any(Path(path).glob("*.safetensors")):
        _check_pickled(spec, repository, revision)
    return Path(path)


def file(repository: str, name: str) -> Path:
    """Downloads one file of a repository, or finds it in the hub's cache.

    Args:
      repository: `org/name`, or the name of an old repository without one.
      name: of the file.

    Raises:
      UserError: it cannot be had.
    """
    import huggingface_hub

    try:
        return Path(huggingface_hub.hf_hub_download(repository, name))
    except Exception as e:  # as above
        raise UserError(f"{name} of 'hf:{repository}' {_sentence(e, repository, None)}") from e


def _check_pickled(spec: str, repository: str, revision: str | None) -> None:
    """Raises UserError for a repository whose weights are in pickled files alone."""
    import huggingface_hub

    try:
        files = huggingface_hub.list_repo_files(repository, revision=revision)
    except Exception:  # Without a network, the reader of the directory says what it misses.
        return
    pickled = sorted(name for name in files if "/" not in name and name.endswith(PICKLED))
    if pickled and not any("/" not in n and n.endswith(".safetensors") for n in files):
        convert = CONVERT.replace("DIR)", f"{repository!r})", 1)
        raise UserError(f"tower {spec!r} has its weights in {pickled[0]}, {convert}")


def _sentence(error: Exception, repository: str, revision: str | None) -> str:
    """What went wrong and what to do; follows the tower's spec."""
    import huggingface_hub.errors as hub

    page = f"https://huggingface.co/{repository}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, hub.GatedRepoError):
        return (
            f"is gated: accept its licence on {page} and log in with `hf auth login`, with the "
            "same account"
        )
    if isinstance(error, hub.RevisionNotFoundError):
        return f"has no revision {revision!r}; {page}/tree/main shows what there is"
    if isinstance(error, hub.RepositoryNotFoundError) or status in (401, 404):
        return (
            f"is not on the Hugging Face hub, or is private; check the name on {page}, and log in "
            "with `hf auth login` if it is private"
        )
    if isinstance(error, hub.DisabledRepoError) or status == 403:
        return (
            f"may not be read (403); accept its conditions on {page}, and give the token of "
            "`hf auth login` the right to read it"
        )
    if isinstance(error, hub.OfflineModeIsEnabled | hub.LocalEntryNotFoundError) and _offline():
        return (
            "is not in the hub's cache, and HF_HUB_OFFLINE forbids to fetch it; unset that once, "
            "or write the path of a downloaded directory"
        )
    if status == 429:
        return "was not fetched, as the hub limits requests (429); log in with `hf auth login`"
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return (
        f"could not be fetched from the Hugging Face hub ({reason}); check the name and the "
        "network, or write the path of a downloaded directory"
    )


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
