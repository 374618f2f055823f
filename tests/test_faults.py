"""A few faults of the campaign (`tests/benchmarks/faults.py`): nothing is lost."""

import json
import pathlib
import subprocess
import sys

import pytest

_CAMPAIGN = pathlib.Path(__file__).parent / "benchmarks/faults.py"


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "commands",
    [
        "extract,index",
        # They take twice as long, and write what they keep as those two do.
        pytest.param("export,evaluate", marks=pytest.mark.slow),
    ],
)
def test_what_a_fault_interrupts_is_made_whole_by_the_same_command(commands):
    """Twenty faults, of every kind with every command."""
    command = [sys.executable, str(_CAMPAIGN), "--count=20", "--seed=1", "--jobs=2"]
    command.append(f"--commands={commands}")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1100)
    figures = json.loads(done.stdout)
    assert figures["faults"] == 20 and figures["lost"] == 0, done.stderr
    assert figures["tracebacks"] == 0 and figures["wrong_exit_codes"] == 0, done.stderr
