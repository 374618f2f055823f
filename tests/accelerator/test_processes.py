"""What runs the parts: wrong figures, errors and lost time decide the exit code."""

import json
import os
import pathlib
import subprocess
import time

import pytest

from tests.accelerator import __main__ as command
from tests.accelerator import parts
from tests.accelerator.settings import environment

BROKEN = ("broken/wrong", "broken/stopped", "broken/endless")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs parts that are not right, and gives the exit code and the lines that were kept."""
    monkeypatch.setattr(parts, "PARTS", BROKEN)

    def run(*arguments):
        code = command.main([*arguments, "--device", "cpu", "--small", "--out", str(tmp_path)])
        kept = (tmp_path / "figures.jsonl").read_text().splitlines()
        return code, list(map(json.loads, kept))

    return run


def test_what_is_not_right_is_exit_code_1_and_named(run, capfd, tmp_path):
    code, lines = run("broken/wrong")
    assert code == 1
    assert [line.get("right") for line in lines] == [None, True, False, None]
    printed = capfd.readouterr()
    assert "not right: broken/wrong: a large difference" in printed.err
    assert printed.out.splitlines() == [json.dumps(line) for line in lines]
    table = (tmp_path / "table.md").read_text()
    assert "WRONG" in table and "1e-05" in table and "jax" in table.splitlines()[0]


def test_an_error_is_a_line_and_its_traceback_in_the_log(run, tmp_path):
    code, lines = run("broken/stopped")
    assert code == 1
    assert lines[-1]["value"] == "RuntimeError: there is no such kernel"
    log = (tmp_path / "log").read_text()
    assert "Traceback" in log and '{"not": "a figure"}' in log


def test_a_part_over_its_time_is_ended_and_said(run, monkeypatch):
    monkeypatch.setattr(command, "_GRACE", 0.0)
    began = time.monotonic()
    code, lines = run("broken/endless", "--minutes", "0.05")
    assert code == 1 and lines[-1]["value"] == "was ended after 0.05 minutes"
    assert time.monotonic() - began < 60


def test_speeds_that_do_not_come_decide_nothing():
    assert command._broken("fast/card", "ended with -9").get("right") is None
    assert command._broken("correct/heads", "ended with -9")["right"] is False


def test_what_a_part_has_started_ends_with_it():
    script = ["bash", "-c", "sleep 1000 & echo $!; wait"]
    child = subprocess.Popen(script, stdout=subprocess.PIPE, text=True, start_new_session=True)
    with command._ended_after(child, 1000):
        grandchild = int(child.stdout.readline())
        assert _is_running(grandchild)
    deadline = time.monotonic() + 10
    while _is_running(grandchild) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_running(grandchild)


def _is_running(pid):
    """Not a process that ended and that nobody has asked for."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_flags_of_xla_are_added_to_those_that_are_there(monkeypatch):
    monkeypatch.setitem(os.environ, "XLA_FLAGS", "--mine")
    monkeypatch.delitem(os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    made = environment("gpu", {"XLA_FLAGS": "--theirs", "OTHER": "1"})
    assert made["XLA_FLAGS"] == "--mine --theirs" and made["OTHER"] == "1"
    assert made["JAX_PLATFORMS"] == "cuda,cpu"
    assert made["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


def test_a_word_that_is_no_part_is_refused_in_a_sentence(capsys):
    assert command.main(["quick"]) == 2
    assert "error: there is no part 'quick'; there are correct/" in capsys.readouterr().err
