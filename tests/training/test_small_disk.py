"""A disk that becomes full, read-only or empty under a run: a sentence alone, and it goes on."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from ape_jax import config as config_lib

SCRIPT = pathlib.Path(__file__).with_name("small_disk.py")
KEEPS_BEST = {"eval.keep": "best", "train.eval_every": 2}
CLOSED = {"method": "cca"}
QUICK = [
    ({"cache.dir": "DISK/features"}, "prepared", "full"),
    ({}, "step 5", "full"),
    ({}, "evaluation", "read_only"),
    ({}, "step 5", "removed"),
]
MORE = [
    *(({}, moment, "full") for moment in ("start", "prepared", "left out", "step 1", "step 7")),
    *(({}, moment, "full") for moment in ("evaluation", "summary", "report")),
    *(({}, moment, "replaced") for moment in ("step 1", "evaluation")),
    *(({}, moment, "read_only") for moment in ("start", "left out", "step 1", "summary")),
    *(({}, moment, "removed") for moment in ("prepared", "step 1", "evaluation", "summary")),
    *(({}, "report written", action) for action in ("full", "read_only", "removed")),
    *((KEEPS_BEST, "step 3", action) for action in ("full", "read_only", "removed", "replaced")),
    *((CLOSED, "closed evaluation", action) for action in ("full", "read_only", "removed")),
]


def outcomes(config, folder, cases):
    """What becomes of each case, on a disk of its own."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")
    disk = folder / "disk"
    disk.mkdir()
    (folder / "config.json").write_text(json.dumps(config_lib.flatten(config)))
    written = json.dumps(cases).replace("DISK", str(disk))
    command = ["unshare", "-rm", sys.executable, SCRIPT, folder / "config.json", disk, written]
    # On one device: arrays of eight are written in eight parts.
    env = {**os.environ, "XLA_FLAGS": ""}
    seconds = 120 + 20 * len(cases)
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=seconds, env=env
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(cases)
    return found


def check(found):
    """One sentence that names the directory, nothing half-written, and the same command goes on."""
    where = f"{found['action']} at {found['moment']}: {found['error']}"
    assert "bug" not in found and found["error"], where
    assert found["error"].startswith(("--workdir: ", "cache.dir: ")), where
    assert "\n" not in found["error"] and "/disk/" in found["error"], where
    assert "Traceback" not in found["said"] and "ERROR" not in found["said"], found["said"]
    assert not found["partial"], where
    # Whatever threads still wrote while it was removed is no run that anybody could take up.
    assert not (found["action"] == "removed" and "summary.json" in found["kept"]), where
    assert "again" not in found, f"{where}; then {found.get('again')}"
    assert found["step"] is not None, where


@pytest.mark.parametrize(
    "cases", [QUICK, pytest.param(MORE, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_whatever_becomes_of_the_disk_is_one_sentence_and_the_same_command_goes_on(
    new_tiny_config, tmp_path, cases
):
    for found in outcomes(config_lib.resolve(new_tiny_config()), tmp_path, cases):
        check(found)
