"""The files of an export: JSON, and tensors without pickles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file


def write_json(path: Path, value: Any) -> None:
    """Indented JSON."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], form: str = "pt") -> None:
    """A safetensors file.

    Args:
      path: of the file.
      tensors: by their names.
      form: what its header says of who wrote it; transformers wants "pt".

    Raises:
      OSError: where it cannot be written.
    """
    try:
        save_file(dict(tensors), path, metadata={"format": form})
    except SafetensorError as error:  # It hides what the system said.
        raise OSError(f"{path.name}: {error}") from error
    path.chmod(0o644)  # It is made for the owner alone.
