"""The page as a process of its own, which tests drive from outside."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from typing import NamedTuple

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_ROOT = pathlib.Path(__file__).parents[3]
# Runs first in the page's process: writes down where it connects to, beside this machine.
_WATCH = """
import os, sys
def watch(event, args):
    if event == "socket.getaddrinfo":
        host = args[0]
    elif event == "socket.connect" and isinstance(args[1], tuple):
        host = args[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in ("127.0.0.1", "::1", "localhost", "", None):
        with open(os.environ["WATCHED"], "a") as log:
            log.write(f"{event} {args}\\n")
sys.addaudithook(watch)
open(os.environ["WATCHED"], "a").close()
"""


class App(NamedTuple):
    """A page that is being shown.

    Attributes:
      url: its address.
      watched: where its process writes down what it would have connected to.
      log: what it prints.
      process: its process.
      root: its folder for temporary files.
    """

    url: str
    watched: pathlib.Path
    log: pathlib.Path
    process: subprocess.Popen
    root: pathlib.Path

    @property
    def port(self):
        """The port that it listens at."""
        return int(self.url.rpartition(":")[2].strip("/"))


@pytest.fixture(scope="module")
def chromium():
    """A browser; a machine without one skips, and says so at the end."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="browser tests: playwright is not installed"
    )
    chosen = os.environ.get("APE_JAX_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), "")
    if not chosen:
        pytest.skip("browser tests: no Chromium was found (install one, or set APE_JAX_CHROMIUM)")
    with playwright.sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=chosen)


@pytest.fixture(scope="module")
def app(tiny_run, tmp_path_factory):
    """The page, served by a process of its own."""
    pytest.importorskip("gradio", reason="page tests: gradio is not installed")
    root = tmp_path_factory.mktemp("app")
    (root / "sitecustomize.py").write_text(_WATCH)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "APE_JAX_CACHE": str(root / "cache"),
        "GRADIO_ANALYTICS_ENABLED": "True",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": os.pathsep.join([str(root), str(_ROOT)]),
        "TMPDIR": str(root),
        "WATCHED": str(root / "watched"),
        "XLA_FLAGS": "",
    }
    command = [sys.executable, "-m", "ape_jax.page", f"--workdir={tiny_run}", f"--port={port}"]
    with (root / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=root)
    url = f"http://127.0.0.1:{port}/"
    try:
        _wait_for(url, process, root / "log")
        yield App(url, root / "watched", root / "log", process, root)
    finally:
        process.terminate()
        process.wait(60)
    assert process.returncode == 0
    assert not list(root.glob("ape_jax_page_*")), "what visitors have left is still there"
    assert "Traceback" not in (root / "log").read_text()


def _wait_for(url, process, log):
    for _ in range(480):
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.5)
    raise AssertionError(log.read_text())
