"""A few faults of the campaign (`tests/benchmarks/faults.py`): nothing is lost."""

import json
import pathlib
import subprocess
import sys

import pytest

_CAMPAIGN = pathlib.Path(__file__).parent / "benchmarks/faults.py"


@pytest.mark.timeout(1200)
def test_what_a_fault_interrupts_is_made_whole_by_the_same_command():
    command = [sys.executable, str(_CAMPAIGN), "--count=20", "--seed=1", "--jobs=2"]
    command += ["--commands=extract,index,export,evaluate", "--kinds=kill,term,full,flip,removed"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1100)
    figures = json.loads(done.stdout)
    assert figures["faults"] == 20 and figures["lost"] == 0, done.stderr
    assert figures["tracebacks"] == 0 and figures["wrong_exit_codes"] == 0, done.stderr
