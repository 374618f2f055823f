"""The command as one, two and four processes of eight devices in all, over gloo."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ape_jax import config as config_lib
from tests import compiling

ROOT = pathlib.Path(__file__).parent.parent.parent
LAYOUTS = ((1, 8), (2, 4), (4, 2))
STEPS = 50


@pytest.fixture(scope="module")
def config_file(new_tiny_config, tmp_path_factory):
    """A config of the tiny world as a file; cached features, dropout, evaluation, checkpoints."""
    tiny_config, tmp_path = new_tiny_config(), tmp_path_factory.mktemp("config")
    tiny_config.cache.views, tiny_config.augment.flip = 2, True
    tiny_config.text.head.dropout = 0.1
    tiny_config.train.steps, tiny_config.train.log_every = STEPS, 1
    tiny_config.train.checkpoint_every = tiny_config.train.eval_every = STEPS // 2
    flat = config_lib.flatten(config_lib.resolve(tiny_config))
    (tmp_path / "flat.json").write_text(json.dumps(flat))
    path = tmp_path / "config.py"
    path.write_text(
        "import json, ml_collections\n"
        "from ape_jax import config\n"
        "def get_config(arg=''):\n"
        f"    flat = json.load(open({str(tmp_path / 'flat.json')!r}))\n"
        "    return ml_collections.ConfigDict(config.unflatten(flat))\n"
    )
    return path


@pytest.fixture(scope="module")
def whole(config_file, tmp_path_factory):
    """The work directory of two processes that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole") / "2x2"
    run((2, 2), config_file, workdir)
    return workdir


def start(layout, config_file, workdir, *flags):
    """The command through the launcher, in a process group of its own."""
    command = [ROOT / "launch/local_processes.sh", *map(str, layout)]
    command += [sys.executable, "-m", "ape_jax.main", "--config", config_file]
    env = {**os.environ, "XLA_FLAGS": " ".join(compiling.QUICK)}
    return subprocess.Popen(
        [*map(str, command), "--workdir", str(workdir), *flags],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process, timeout=240):
    """Exit code and output; whatever is left of the group is ended."""
    try:
        out, _ = process.communicate(timeout=timeout)
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return process.returncode, out


def run(layout, config_file, workdir, *flags):
    code, out = finish(start(layout, config_file, workdir, *flags))
    assert code == 0, out
    return metrics(workdir)


def metrics(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {(line["step"], key): line[key] for line in map(json.loads, lines) for key in line}


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    assert sum(key == "train/loss" for _, key in found) == STEPS
    for name, value in expected.items():
        # Of rates a single pair that changes places is more than rounding.
        tolerance = 1e-5 if name[1] == "train/loss" else 1e-3
        assert found[name] == pytest.approx(value, rel=tolerance, abs=1e-6), name


def workers(process):
    """The processes that the launcher has started, in their order."""
    listing = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(process.pid)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return [int(line.split()[0]) for line in listing.splitlines() if "ape_jax.main" in line]


def wait_for(path, process, seconds=180):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.timeout(900)  # Six runs, of up to four processes.
def test_layouts_train_alike_and_take_up_each_others_checkpoints(config_file, tmp_path):
    expected = run(LAYOUTS[0], config_file, tmp_path / "1x8")
    for layout in LAYOUTS[1:]:
        workdir = tmp_path / "{}x{}".format(*layout)
        assert_close(run(layout, config_file, workdir), expected)
    for first, second in ((0, 1), (1, 2), (2, 0)):
        made, taken_up = ("{}x{}".format(*LAYOUTS[i]) for i in (first, second))
        workdir = tmp_path / f"{made}-{taken_up}"
        shutil.copytree(tmp_path / made, workdir)
        shutil.rmtree(workdir / "checkpoints" / str(STEPS))
        (workdir / "summary.json").unlink()
        assert_close(run(LAYOUTS[second], config_file, workdir), expected)


def test_two_processes_train_as_one(config_file, whole, tmp_path):
    assert_close(metrics(whole), run((1, 4), config_file, tmp_path / "one"))


def test_a_lost_process_ends_the_others_and_the_run_resumes(config_file, whole, tmp_path):
    workdir = tmp_path / "cut"
    process = start((2, 2), config_file, workdir)
    wait_for(workdir / "checkpoints" / str(STEPS // 2), process)
    began = time.monotonic()
    os.kill(workers(process)[1], signal.SIGKILL)
    code, out = finish(process, timeout=60)
    assert code != 0 and time.monotonic() - began < 60
    assert "ending the others" in out or "Traceback" in out
    assert_same_end(config_file, workdir, whole)


@pytest.mark.slow
def test_without_a_launcher_the_others_end_by_themselves_and_say_why(config_file, tmp_path):
    command = [sys.executable, "-m", "ape_jax.main", "--config", config_file]
    command += ["--workdir", tmp_path / "cut", "--config.train.steps=20000"]
    lines = subprocess.run(
        [ROOT / "launch/local_processes.sh", "--dry-run", "4", "2", *map(str, command)],
        env={**os.environ, "XLA_FLAGS": " ".join(compiling.QUICK)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    processes = [
        subprocess.Popen(
            ["bash", "-c", f"exec {line}"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in lines
    ]
    try:
        wait_for(tmp_path / "cut/checkpoints" / str(STEPS // 2), processes[0])
        processes[3].kill()
        began = time.monotonic()
        for process in processes[:3]:
            _, said = process.communicate(timeout=60)
            assert process.returncode not in (0, None)
            # Where one that has noticed ends first, JAX ends the next before it can speak itself.
            ours, jaxs = "another process of this run was lost", "another task died"
            assert ours in said or jaxs in said or "heartbeat" in said, said
        assert time.monotonic() - began < 60
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_notice_to_one_process_saves_and_ends_all(config_file, whole, tmp_path):
    workdir = tmp_path / "cut"
    slow = ("--config.train.steps_per_call=1", "--config.train.log_every=1")
    process = start((2, 2), config_file, workdir, *slow)
    wait_for(workdir / "metrics.jsonl", process)
    os.kill(workers(process)[0], signal.SIGTERM)
    code, out = finish(process, timeout=90)
    assert code == 0, out
    if not (workdir / "summary.json").exists():  # Else it was at its end already.
        assert out.count("asked to end: step") == 2 and "goes on from there" in out
    assert_same_end(config_file, workdir, whole)


def assert_same_end(config_file, workdir, other):
    """Taken up, the run ends with the bits of one that was not disturbed."""
    run((2, 2), config_file, workdir)
    ours, theirs = (parameters(path) for path in (workdir, other))
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def parameters(workdir):
    import jax
    import orbax.checkpoint as ocp

    path = workdir / "checkpoints" / str(STEPS) / "trainable"
    with ocp.PyTreeCheckpointer() as checkpointer:
        tree = checkpointer.metadata(path).item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        tree = checkpointer.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(key): value for key, value in leaves}
