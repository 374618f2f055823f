"""The command, compiling for TPUs for real."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# Apart from the environment's packages, where every other command would find a TPU to start.
COMPILER = pathlib.Path(sys.prefix) / "tpu"


@pytest.fixture(scope="module")
def environment():
    """What brings the compiler in; `launch/test.sh` installs it."""
    assert COMPILER.is_dir(), f"pip install --target {COMPILER} -r requirements-tpu.txt"
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{COMPILER}", "XLA_FLAGS": ""}


@pytest.fixture
def plan(tiny, environment):
    """Runs the command on a small APE, and gives exit code, standard output and the last line."""

    def run(*flags, env=environment):
        config = f"configs/ape.py:image={tiny / 'image'},text={tiny / 'text'},pairs=none.jsonl"
        command = [sys.executable, "-m", "ape_jax.plan", "--config", config, "--longest=8", *flags]
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False
        )
        return done.returncode, done.stdout, (done.stderr.strip().splitlines() or [""])[-1]

    return run


def test_a_step_that_fits_is_measured(plan):
    code, out, error = plan("--topology=v5e:2x2", "--batch=64", "--json", "--pairs=1000")
    assert code == 0, error
    made = json.loads(out)
    step = made["step"]
    assert step["fits"] and made["chips"] == 4 and step["rows"] == 64
    assert sum(step["arguments"].values()) < step["peak"] < made["device_hbm"]
    assert step["traffic"]["all-reduce"] > 0 and step["seconds"] > 0 and step["largest"]
    assert set(made["encoding"]) == {"images", "captions"} and made["encoding_hours"] > 0


def test_a_step_that_does_not_fit_exits_with_the_reason(plan):
    code, out, error = plan(
        "--topology=v5e:2x2", "--config.train.batch=67108864", "--config.text.head.width=4096"
    )
    assert code == 1 and "does not fit" in out
    assert error.startswith("error: the training step does not fit on v5e:2x2: ")
    assert "exceeds available HBM" in error and "a smaller train.batch or text.head" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--topology=v5e:3x3"], "error: --topology: there is no slice v5e:3x3"),
        (["--topology=v5e:2x2", "--batch=6"], "error: config.train.batch: 6 does not divide"),
    ],
)
def test_what_cannot_be_planned_is_refused(plan, flags, message):
    code, _, error = plan(*flags)
    assert code == 1 and error.startswith(message)


def test_without_the_compiler_it_says_what_to_install(plan, environment):
    code, _, error = plan("--topology=v5e:2x2", env={**environment, "PYTHONPATH": str(ROOT)})
    assert code == 1 and "requirements-tpu.txt" in error
