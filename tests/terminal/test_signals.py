"""A signal ends a command with a sentence, at any moment of it, and leaves nothing half-written."""

import os
import signal
import subprocess
import sys
import time

import pytest

from ape_jax.terminal import catalogue, flags, session

# A command that sends itself a signal when one of its functions is called, and waits in it. The
# wait is in C, where no handler of Python is run.
SCRIPT = """
import ctypes, importlib, os, runpy, signal, sys
# What a shell in the background, or nohup, has switched off for the tests and all below them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
module, function, number, command, *words = sys.argv[1:]
from ape_jax.terminal import command as command_lib
of, _, name = function.rpartition(".")

def send(*_, **__):
    os.kill(os.getpid(), int(number))
    ctypes.CDLL(None).sleep(30)

if module == "start":
    real_handle = command_lib.signals.handle
    def handle():
        real_handle()
        send()
    command_lib.signals.handle = handle
else:
    importlib.import_module(module)
    place = sys.modules[module]
    for part in function.split(".")[:-1]:
        place = getattr(place, part)
    setattr(place, name, send)
sys.argv = [command, *words]
runpy.run_module(command, run_name="__main__", alter_sys=True)
"""


def ended(where, number, command, *words):
    """`(exit code, stderr, seconds)` of a command that gets a signal at a place."""
    arguments = [*where, str(int(number)), command, *map(str, words)]
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    return done.returncode, done.stderr, time.monotonic() - start


START = "start", ""
MOMENTS = [
    (signal.SIGTERM, "train", "ape_jax.main", START),
    (signal.SIGHUP, "export", "ape_jax.export", ("ape_jax.exporters.verify", "ours")),
    (signal.SIGTERM, "index", "ape_jax.index", ("ape_jax.search.store", "write_entries")),
]
MORE = [
    (signal.SIGTERM, "extract", "ape_jax.extract", ("ape_jax.features.cache", "Cache.write")),
    (signal.SIGTERM, "train", "ape_jax.main", ("ape_jax.towers.loading", "read")),
    (signal.SIGHUP, "study", "ape_jax.study", ("ape_jax.training.run", "prepare")),
    (signal.SIGTERM, "evaluate", "ape_jax.evaluate", ("ape_jax.runs.restore", "restore")),
    (signal.SIGTERM, "report", "ape_jax.report", START),
    (signal.SIGTERM, "page", "ape_jax.page", START),
    (signal.SIGTERM, "page", "ape_jax.page", ("ape_jax.pages.served.browser", "_application")),
    (signal.SIGTERM, "judge", "ape_jax.judge", START),
]  # fmt: skip


@pytest.mark.parametrize(
    ("number", "name", "command", "where"),
    [*MOMENTS, *(pytest.param(*row, marks=pytest.mark.slow) for row in MORE)],
)
def test_a_signal_ends_a_command_with_a_sentence(
    number, name, command, where, tiny_run, tiny, tmp_path
):
    few = f"few_pairs:image={tiny / 'image'},text={tiny / 'text'},pairs={tiny / 'pairs.jsonl'}"
    new = ["--config", few, "--workdir", tmp_path / "run", f"--config.cache.dir={tmp_path / 'c'}"]
    words = {
        "export": ["--workdir", tiny_run, "--format", "jax", "--out", tmp_path / "out"],
        "index": ["--workdir", tiny_run, "--images", tiny, "--out", tmp_path / "out"],
        "study": ["--config", "study:runlocal", *new[2:]],
        "judge": [],
    }.get(name, new if name in ("train", "extract", "study") else ["--workdir", tiny_run])
    code, stderr, _ = ended(where, number, command, *words)
    said = f"asked to end by {signal.Signals(number).name}: {catalogue.kept(name)}"
    assert code == 0 and stderr.splitlines()[-1] == said, stderr
    assert "Traceback" not in stderr
    left = [p.name for p in tmp_path.rglob("*") if ".partial" in p.name]
    assert not left


def test_control_c_is_said_where_the_main_thread_does_not_listen(tiny_run):
    where = "ape_jax.evaluators.tasks", "evaluate_languages"
    code, stderr, seconds = ended(where, signal.SIGINT, "ape_jax.evaluate", "--workdir", tiny_run)
    assert code == 130 and stderr.splitlines()[-1] == "interrupted" and "Traceback" not in stderr
    assert seconds < 60


# Python drops the exception of Control-C that comes up in a destructor. Afterwards a library that
# serves takes the signal for itself, as Uvicorn does.
DROPPED = """
import os, signal, time
from ape_jax.parallel import signals
signal.signal(signal.SIGINT, signal.default_int_handler)
signals.watch("kept")
class Interrupted:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(10):
            time.sleep(0.1)
Interrupted()
time.sleep(0.5)
signal.signal(signal.SIGINT, lambda *_: None)
time.sleep(60)
"""


def test_control_c_ends_a_command_that_dropped_its_exception():
    command = [sys.executable, "-c", DROPPED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=55, check=False)
    assert done.returncode == 130 and done.stderr.endswith("kept\ninterrupted\n"), done.stderr
    assert "Exception ignored" in done.stderr


def test_an_interrupt_says_how_to_go_on(capsys):
    def interrupted():
        raise KeyboardInterrupt

    flags.reset()
    with pytest.raises(SystemExit) as stop:
        session.run(interrupted, "train", alone=False)
    assert stop.value.code == 130
    assert capsys.readouterr().err == f"{catalogue.kept('train')}\ninterrupted\n"


def test_every_command_says_what_is_kept():
    assert all(entry.kept for entry in catalogue.COMMANDS.values())
