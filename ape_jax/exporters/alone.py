"""Scripts of this room in processes of their own, in which nothing of ours is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ape_jax.errors import UserError


def run(script: str, job: Mapping[str, Any], work: Path, wrong: str) -> None:
    """Runs a script of this room on a job.

    Args:
      script: its file name; it takes the path of a JSON file.
      job: the content of that file.
      work: a directory for that file and for the code that transformers copies.
      wrong: what it means where the script fails, as the beginning of a sentence.

    Raises:
      UserError: where it fails: `wrong`, and the error it ended with.
    """
    (work / "job.json").write_text(json.dumps(job), encoding="utf-8")
    environment = {
        **os.environ,
        "HF_MODULES_CACHE": str(work / "modules"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    command = [sys.executable, "-P", str(Path(__file__).with_name(script)), str(work / "job.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{wrong}: {_reason(done.stderr) or f'exit code {done.returncode}'}")


def _reason(said: str) -> str:
    """The first line of the last error, which may have many; without a traceback the last line."""
    _, traceback, after = said.strip().rpartition("Traceback (most recent call last):\n")
    lines = after.splitlines() if traceback else after.splitlines()[-1:]
    return next((line for line in lines if line and not line.startswith(" ")), "")
