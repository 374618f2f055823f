"""A few faults of the campaign (`tests/benchmarks/faults.py`): nothing is lost."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests import compiling

_CAMPAIGN = pathlib.Path(__file__).parent / "benchmarks/faults.py"


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("commands", "count"),
    [
        ("extract,index", 14),
        # Six of the pairs a second time, at other moments.
        pytest.param("extract,index", 20, marks=pytest.mark.slow),
        # They take twice as long, and write what they keep as those two do.
        pytest.param("export,evaluate", 20, marks=pytest.mark.slow),
    ],
)
def test_what_a_fault_interrupts_is_made_whole_by_the_same_command(commands, count):
    """Faults of every kind, of which there are seven, with every command; on one device."""
    command = [sys.executable, str(_CAMPAIGN), f"--count={count}", "--seed=1", "--jobs=2"]
    command.append(f"--commands={commands}")
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=1100,
        env={**os.environ, "XLA_FLAGS": " ".join(compiling.QUICK)},
    )
    figures = json.loads(done.stdout)
    assert figures["faults"] == count and figures["lost"] == 0, done.stderr
    assert figures["tracebacks"] == 0 and figures["wrong_exit_codes"] == 0, done.stderr
