"""Taking a work directory: who gets it, and what an error leaves of it."""

import errno
import json
import os
import subprocess
import sys

import pytest

from ape_jax import config as config_lib
from ape_jax.errors import Preempted, UserError
from ape_jax.runs.directory import claim, workdir


@pytest.fixture
def config(tiny_config):
    return config_lib.resolve(tiny_config)


def changed(config, **changes):
    flat = {**config_lib.flatten(config), **{k.replace("__", "."): v for k, v in changes.items()}}
    return config_lib.resolve(config_lib.unflatten(flat))


def take(path, config, kind="run"):
    with claim.claimed(path, config, kind):
        pass


def contents(root):
    """Every file with its bytes, and every folder; a lock file names its start while it is held."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        if path.is_file() and path.name != ".lock"
        else None
        for path in root.rglob("*")
    }


def test_config_is_read_back_as_it_was(tmp_path, config):
    take(tmp_path / "run", config)
    assert workdir.read_config(tmp_path / "run") == config


def test_keys_that_do_not_change_the_result_may_differ(tmp_path, config):
    take(tmp_path, config)
    checkpoint(tmp_path)
    take(tmp_path, changed(config, train__log_every=1))
    assert workdir.read_config(tmp_path).train.log_every == 1


def test_two_starts_do_not_work_in_one_directory(tmp_path, config):
    with claim.claimed(tmp_path, config):
        before = contents(tmp_path)
        with pytest.raises(UserError, match="another process is working"):
            take(tmp_path, changed(config, train__log_every=1))
        assert contents(tmp_path) == before
    take(tmp_path, config)
    assert (tmp_path / ".lock").read_bytes() == b""


def test_directory_under_a_file_is_one_sentence(tmp_path, config):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^--workdir: .*cannot be written \(.*\); "):
        take(tmp_path / "file" / "run", config)


def checkpoint(path, name="4"):
    (path / "checkpoints" / name).mkdir(parents=True)


def unfinished(path):
    checkpoint(path, "4.orbax-checkpoint-tmp-3")


def folder(path):
    (path / "checkpoints").mkdir(exist_ok=True)


def first_writes(path):
    unfinished(path)
    (path / "metrics.jsonl").touch()
    (path / "tensorboard").mkdir()
    (path / "tensorboard/events").write_bytes(b"\0")
    (path / "left_out.jsonl").write_text("{}\n")


def metrics(path):
    (path / "metrics.jsonl").write_text('{"step": 2}\n')


def summary(path):
    (path / "summary.json").write_text("{}")


def nothing(path):
    pass


ERRORS = [
    UserError("a picture cannot be read"),
    OSError(errno.ENOSPC, "No space left on device"),
    KeyboardInterrupt(),
    SystemExit(143),
    MemoryError(),
    RuntimeError("out of memory"),
    Preempted(),
]
MOMENTS = [nothing, folder, unfinished, first_writes]


def absent(path, config):
    pass


def nested(path, config):
    path.parent.rmdir()


def empty(path, config):
    path.mkdir()


def of_somebody(path, config):
    path.mkdir()
    (path / "notes.txt").write_text("mine")
    (path / "data").mkdir()


def begun(path, config):
    take(path, config)


def trained(path, config):
    take(path, changed(config, train__log_every=1))
    checkpoint(path)
    metrics(path)


@pytest.mark.parametrize("before", [absent, nested, empty, of_somebody, begun, trained])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_any_error_before_something_is_kept_leaves_the_directory_as_it_was(
    tmp_path, config, before, moment, error
):
    if before is trained and moment is first_writes:
        moment = unfinished  # What comes after belongs to a run that has metrics.
    path = tmp_path / "runs" / "mine"
    path.parent.mkdir()
    before(path, config)
    kept = contents(tmp_path)
    with pytest.raises(type(error)), claim.claimed(path, config):
        moment(path) if before is not trained else folder(path)
        raise error
    assert contents(tmp_path) == kept
    mended = config if before is trained else changed(config, train__steps=7)
    take(path, mended)
    assert workdir.read_config(path) == mended


@pytest.mark.parametrize("kept", [checkpoint, metrics, summary])
@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_what_is_worth_keeping_stays_after_an_error(tmp_path, config, kept, error):
    with pytest.raises(type(error)), claim.claimed(tmp_path, config):
        first_writes(tmp_path)
        kept(tmp_path) if kept is not checkpoint else checkpoint(tmp_path, "8")
        left = contents(tmp_path)
        raise error
    assert contents(tmp_path) == left
    with pytest.raises(UserError, match=r"train.steps is 8 there and 7 here; use a new"):
        take(tmp_path, changed(config, train__steps=7))
    assert contents(tmp_path) == left


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_start_that_was_killed_before_it_kept_something_keeps_nobody_out(
    tmp_path, config, moment, capsys
):
    take(tmp_path, config)
    moment(tmp_path)
    take(tmp_path, changed(config, optim__lr=0.5))
    assert workdir.read_config(tmp_path).optim.lr == 0.5
    assert "config.json is of a run that left nothing, and is replaced" in capsys.readouterr().err


@pytest.mark.parametrize("kept", [checkpoint, metrics, summary])
def test_what_is_worth_keeping_without_a_config_is_not_taken(tmp_path, config, kept):
    kept(tmp_path)
    left = contents(tmp_path)
    with pytest.raises(UserError, match=r"holds \S+ but no config\.json"):
        take(tmp_path, config)
    assert contents(tmp_path) == left


@pytest.mark.parametrize("content", ['{"model_type": "vit"}', "", "[]", '{"seed": "x"}'])
def test_a_config_of_something_else_is_never_replaced(tmp_path, config, content):
    (tmp_path / "config.json").write_text(content)
    left = contents(tmp_path)
    with pytest.raises(UserError, match=r"config\.json"):
        take(tmp_path, config)
    assert contents(tmp_path) == left


def test_a_study_is_kept_by_its_runs(tmp_path, config):
    cell = tmp_path / "ape" / "n24" / "seed0"
    with pytest.raises(KeyboardInterrupt), claim.claimed(tmp_path, config, "study"):
        take(cell, config)
        raise KeyboardInterrupt  # Nothing is in the run yet.
    assert not (tmp_path / "study.json").exists()
    with pytest.raises(KeyboardInterrupt), claim.claimed(tmp_path, config, "study"):
        checkpoint(cell)
        raise KeyboardInterrupt
    with pytest.raises(UserError, match=r"holds a study of another config: train\.steps"):
        take(tmp_path, changed(config, train__steps=7), "study")


def test_a_directory_that_is_taken_away_stays_away(tmp_path, config):
    import shutil

    with pytest.raises(UserError, match="gone"), claim.claimed(tmp_path / "run", config):
        shutil.rmtree(tmp_path / "run")
        raise UserError("gone")
    assert contents(tmp_path) == {}


def of_another_start(path, config):
    take(path, config)
    (path / ".lock").write_text("7 another")


def of_no_run(path, config):
    path.mkdir()
    (path / "tensorboard").mkdir()
    (path / "tensorboard" / "mine").write_text("mine")
    (path / "config.json").write_text("{}")


@pytest.mark.parametrize("after", [of_another_start, of_no_run])
@pytest.mark.parametrize("before", [absent, of_somebody])
def test_a_directory_that_is_put_in_its_place_stays_as_it_is(tmp_path, config, before, after):
    import shutil

    path = tmp_path / "run"
    before(path, config)
    with pytest.raises(UserError, match="gone"), claim.claimed(path, config):
        first_writes(path)
        shutil.rmtree(path)
        after(path, changed(config, train__steps=7))
        left = contents(path)
        raise UserError("gone")
    assert contents(path) == left


def own_tensorboard(path):
    path.mkdir()
    (path / "tensorboard").mkdir()
    (path / "tensorboard" / "mine").write_text("mine")


def places_that_are_away(path):
    path.mkdir()
    for name in ("tensorboard", "best", "table.md"):
        (path / name).symlink_to(path.parent / "unmounted")


def link(path):
    own_tensorboard(path.parent / "elsewhere")
    path.symlink_to(path.parent / "elsewhere")


def lock_of_a_killed_start(path):
    own_tensorboard(path)
    (path / ".lock").write_text("7 killed")


@pytest.mark.parametrize(
    "own", [own_tensorboard, places_that_are_away, link, lock_of_a_killed_start]
)
def test_what_was_there_before_is_there_after_an_error(tmp_path, config, own):
    own(tmp_path / "run")
    kept, links = contents(tmp_path), [path for path in tmp_path.rglob("*") if path.is_symlink()]
    with pytest.raises(UserError, match="no"), claim.claimed(tmp_path / "run", config):
        unfinished(tmp_path / "run")
        (tmp_path / "run" / "left_out.jsonl").write_text("{}\n")
        raise UserError("no")
    assert contents(tmp_path) == kept
    assert all(path.is_symlink() for path in links)


STARTS = """
import json, os, pathlib, signal, sys, time
from ape_jax import config as config_lib
from ape_jax.config import Config
from ape_jax.errors import UserError
from ape_jax.parallel import verdicts
from ape_jax.runs.directory import claim

verdicts.hosts.is_first, verdicts.jax.process_count = lambda: True, lambda: 1  # No device is asked.
path, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
base = json.loads(pathlib.Path(sys.argv[3]).read_text())
begin, results = time.monotonic() + 1, []
for number in range(count):
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        results.append(reading)
        continue
    values = {**base, "train.log_every": number + 1}
    config = config_lib.resolve(config_lib.unflatten(values), Config)
    time.sleep(max(0, begin - time.monotonic()))
    try:
        with claim.claimed(path, config):
            os.write(writing, b"won")
            time.sleep(4)
            os._exit(0)  # As if it were killed.
    except UserError as error:
        os.write(writing, str(error).encode())
    os._exit(0)
print(json.dumps([os.read(reading, 4096).decode() for reading in results]))
"""


def test_of_many_starts_at_once_one_wins_and_its_config_stays(tmp_path, config):
    (tmp_path / "base.json").write_text(json.dumps(config_lib.flatten(config)))
    path, count = tmp_path / "runs" / "mine", 60
    command = [sys.executable, "-c", STARTS, str(path), str(count), str(tmp_path / "base.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said.count("won") == 1
    busy = [one for one in said if one != "won"]
    assert all("another process is working" in one for one in busy)
    assert workdir.read_config(path).train.log_every == said.index("won") + 1
    assert sorted(os.listdir(path)) == [".lock", "config.json"]
