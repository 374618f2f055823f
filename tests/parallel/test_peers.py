"""The end of one process is the end of all: with a sentence, soon, whatever the others wait for."""

import subprocess
import sys
import time

import pytest

from tests.parallel.test_two_processes import cluster_of

# One process does something; the others wait, in a collective or elsewhere, for much longer.
SCRIPT = """
import os, sys, time
import jax
from ape_jax.errors import UserError
from ape_jax.parallel import agreement, hosts
from ape_jax.terminal import session
from jax.experimental import multihost_utils
from absl import flags as absl_flags
from ape_jax.terminal import flags
absl_flags.FLAGS.mark_as_parsed()
flags.reset()
who, what, waits = int(sys.argv[1]), sys.argv[2], sys.argv[3]
hosts._LOST_AFTER = 6

def main():
    multihost_utils.sync_global_devices("all are here")
    if jax.process_index() == who:
        if what == "point":
            agreement.agree("another point", {}, "remedy")
        if what == "fact":
            agreement.agree("the point", {"a": "1", "b": "mine", "c": "x"}, "write the same")
        if what == "killed":
            os.kill(os.getpid(), 9)
        raise {"user": UserError("data.pairs: no file x.jsonl"), "bug": RuntimeError("odd\\nmore"),
               "interrupt": KeyboardInterrupt()}[what]
    if what in ("point", "fact"):
        agreement.agree("the point", {"a": "1", "b": "ours", "c": "y"}, "write the same")
    elif waits == "collective":
        multihost_utils.process_allgather(jax.numpy.ones(3))
    time.sleep(60)

session.run(main, "train", alone=True)
"""


def ends(count, *arguments, timeout=60, devices=1, each=None):
    """`(exit code, stdout, stderr)` of each of so many processes, which must end in time."""
    start = time.monotonic()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", *map(str, arguments)],
            env={**env, **(each[i] if each else {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, env in enumerate(cluster_of(count, devices))
    ]
    try:
        said = [p.communicate(timeout=timeout - (time.monotonic() - start)) for p in started]
    finally:
        for process in started:
            process.kill()
    return [(p.returncode, *streams) for p, streams in zip(started, said, strict=True)]


def sentences(stderr):
    """What a user reads, without the notes of C++."""
    return [line for line in stderr.splitlines() if line.startswith(("error:", "process", "inter"))]


MISSING = "data.pairs: no file x.jsonl"
DIFFER = (
    "error: the processes of this run differ in b (and in c): ours in process 0, mine in process "
    "1; write the same"
)
APART = (
    "error: the processes of this run are not at the same point: another point in process 0, the "
    "point in process 1; start all of them with the same command, on the same files"
)
LOST = "error: another process of this run was lost; features and the last checkpoint are kept"


@pytest.mark.parametrize(
    ("who", "what", "waits", "code", "own", "others"),
    [
        (0, "user", "asleep", 1, f"error: {MISSING}", f"error: process 0 of 2: {MISSING}"),
        (1, "user", "collective", 1, f"error: {MISSING}", f"error: process 1 of 2: {MISSING}"),
        (1, "fact", "there", 1, DIFFER, DIFFER),
        (0, "killed", "asleep", 70, None, LOST),
        (1, "killed", "collective", 70, None, "error: another process of this run was lost"),
        *(
            pytest.param(*row, marks=pytest.mark.slow)
            for row in (
                (0, "point", "there", 1, APART, APART),
                (1, "killed", "asleep", 70, None, LOST),
                (0, "killed", "collective", 70, None, "error: another process of this run was"),
                (0, "user", "collective", 1, f"error: {MISSING}", "error: process 0 of 2: data."),
                (1, "bug", "asleep", 70, None, "error: process 1 of 2 failed (RuntimeError: odd);"),
                (1, "bug", "collective", 70, None, "error: process 1 of 2 failed (RuntimeError: "),
                (1, "interrupt", "asleep", 130, "interrupted", "process 1 of 2 was interrupted: "),
            )
        ),
    ],
)
def test_the_end_of_one_process_is_the_end_of_all(who, what, waits, code, own, others):
    for index, (returncode, _, stderr) in enumerate(ends(2, SCRIPT, who, what, waits)):
        if index == who and what == "killed":
            assert returncode == -9
            continue
        assert returncode == code, stderr
        if index == who and own is None:  # A bug is ours: the traceback stands where it happened.
            assert "RuntimeError: odd" in stderr
            continue
        (line,) = sentences(stderr)
        assert line.startswith(own if index == who else others)
        assert "Traceback" not in stderr and "stack trace" not in stderr
