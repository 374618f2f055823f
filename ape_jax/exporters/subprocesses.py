"""Runs this package's scripts in subprocesses that do not import ape_jax."""

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
    """Runs a script of this package on a job.

    Args:
      script: file name in `exporters/scripts`; it takes the path of a JSON file.
      job: content of the JSON file.
      work: directory for the JSON file and for the code that transformers copies.
      wrong: beginning of the error message if the script fails.

    Raises:
      UserError: if the script fails, with `wrong` and the last error of the script.
    """
    (work / "job.json").write_text(json.dumps(job), encoding="utf-8")
    environment = {
        **os.environ,
        "HF_MODULES_CACHE": str(work / "modules"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    path = Path(__file__).parent / "scripts" / script
    command = [sys.executable, "-P", str(path), str(work / "job.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{wrong}: {_reason(done.stderr) or f'exit code {done.returncode}'}")


def _reason(stderr: str) -> str:
    """First line of the last error in stderr; without a traceback, its last line."""
    _, traceback, after = stderr.strip().rpartition("Traceback (most recent call last):\n")
    lines = after.splitlines() if traceback else after.splitlines()[-1:]
    return next((line for line in lines if line and not line.startswith(" ")), "")
