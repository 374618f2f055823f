"""The command, compiling for TPUs for real."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# Apart from the environment's packages, where every other command would find a TPU to start.
COMPILERS = pathlib.Path(sys.prefix)


def with_compiler(folder):
    """What brings a compiler in; `launch/test.sh` installs it."""
    place = COMPILERS / folder
    assert place.is_dir(), f"{place} is missing; launch/test.sh makes it"
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{place}", "XLA_FLAGS": ""}


@pytest.fixture(scope="module")
def environment():
    return with_compiler("tpu")


@pytest.fixture(scope="module")
def for_gpus():
    return with_compiler("gpu")


@pytest.fixture
def plan(tiny, environment):
    """Runs the command on a small APE, and gives exit code, standard output and the last line."""

    def run(*flags, env=environment):
        config = f"ape:image={tiny / 'image'},text={tiny / 'text'},pairs=none.jsonl"
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


@pytest.mark.parametrize(
    ("topology", "extra"),
    [("v5e:2x2", "plan-tpu"), ("h100:2", "plan-gpu")],
)
def test_without_the_compiler_it_says_what_to_install(plan, environment, topology, extra):
    bare = {**environment, "PYTHONPATH": str(ROOT)}
    code, _, error = plan(f"--topology={topology}", env=bare)
    assert code == 1 and f'pip install "ape_jax[{extra}]"' in error


def test_a_step_on_gpus_is_measured(plan, for_gpus):
    code, out, error = plan("--topology=h100:2", "--batch=64", "--json", env=for_gpus)
    assert code == 0, error
    made = json.loads(out)
    step = made["step"]
    assert step["fits"] and made["chips"] == 2 and step["largest"]
    assert sum(step["arguments"].values()) < step["peak"] < 0.75 * made["device_hbm"]
    assert step["traffic"]["all-reduce"] > 0 and step["memory_traffic"] > 0


@pytest.mark.slow
def test_a_step_that_gpus_have_no_memory_for_exits_with_the_reason(plan, for_gpus):
    flags = ("--topology=h100:2", "--batch=262144", "--config.text.head.width=16384")
    code, out, error = plan(*flags, env=for_gpus)
    assert code == 1 and "does not fit" in out
    assert "does not fit on h100:2: it needs " in error and "of 80 JAX takes 60" in error
