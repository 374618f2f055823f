"""Commands that cannot print what they found."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from ape_jax.terminal import stdout

COMMANDS = {
    "page": "ape_jax.export --help",
    "keys": "ape_jax.main --help-config",
    "list": "ape_jax",
    "keys of the list": "ape_jax --help-config=optim",
    "started by the list": "ape_jax evaluate --help",
    "a room": "ape_jax.towers --help",
    "the demo": "ape_jax.demo --only prompts",
}


def _run(command: str, out: int | None, **options: Any) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", *command.split()]
    return subprocess.run(words, stdout=out, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_reader_that_has_left_ends_a_command_without_a_word(command):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = _run(command, writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    "command", ["ape_jax.main --help-config", "ape_jax", "ape_jax.push --help"]
)
def test_a_full_disk_is_one_sentence(command):
    with open("/dev/full", "w") as full:
        done = _run(command, full.fileno())
    said = "error: stdout cannot be written (No space left on device)\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_an_error_of_another_pipe_is_no_end_of_the_output():
    with pytest.raises(BrokenPipeError, match="another"), stdout.written():
        raise BrokenPipeError("another")


def test_a_command_without_stdout_ends_in_order():
    done = _run("ape_jax", None, preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, "")
