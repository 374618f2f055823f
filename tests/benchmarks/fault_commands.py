"""The commands of the fault campaign: how each is called in a room, and what it leaves there.

A room is a folder with a trained run in it where the command needs one. What a command leaves is
compared by bytes: files that two undisturbed runs write alike, and the arrays of checkpoints.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = """
import dataclasses
from ape_jax import config as config_lib

def get_config(arg=""):
    config = config_lib.default()
    config.image.tower, config.text.tower = "{world}/image", "{world}/text"
    config.image.dtype = config.text.dtype = "float32"
    config.data.pairs = "{world}/pairs.jsonl"
    config.data.eval = {{"shapes": "{world}/pairs.jsonl"}}
    config.text.head.depth, config.text.head.width = 2, 64
    config.train.batch, config.train.steps, config.train.log_every = 16, 24, 4
    config.train.checkpoint_every = 4
    config.eval.batch = 8
    config.study.methods, config.study.seeds = ("chance", "cca", "ape"), 1
    config.study.lrs, config.study.set, config.study.sizes, config.study.steps = (), (), (), ()
    return config
"""
# Times, rates and paths differ between runs that do the same.
_MEASURED = ("seconds", "rate", "per_second", "time", "memory", "eta", "mfu", "flops", "bytes")

# Saves doing again what was done before, and is made anew where it is not there.
_REMEMBERED = {"verified.json", ".lock", "xla", "tmp"}


@dataclasses.dataclass(frozen=True)
class Command:
    """One command of the package.

    Attributes:
      module: of the package.
      words: its command line in a room.
      made: what it makes there, which a fault may remove or change.
      needs_run: whether the room begins with a trained run.
      found: what is compared beside files: (room, what it printed) -> name to digest.
    """

    module: str
    words: Callable[[pathlib.Path], list[str]]
    made: tuple[str, ...]
    needs_run: bool
    found: Callable[[pathlib.Path, str], dict[str, str]]


def digests(room: pathlib.Path, made: tuple[str, ...]) -> dict[str, str]:
    """A digest of every file that was made, by its name in the room."""
    found = {}
    for name in made:
        for path in sorted((room / name).rglob("*")):
            if path.is_file() and not set(path.relative_to(room).parts) & _REMEMBERED:
                found[str(path.relative_to(room))] = _digest(_content(path))
    return found


def _content(path: pathlib.Path) -> bytes:
    """What a file holds; of a study's tables not the last one, which has the seconds of runs."""
    content = path.read_bytes()
    if path.name != "table.md":
        return content
    tables = content.decode().strip().split("\n\n")
    assert "seconds" in tables[-1].splitlines()[0], path
    return "\n\n".join(tables[:-1]).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _plain(value: object) -> object:
    """JSON without what was measured in it."""
    if isinstance(value, dict):
        return {
            key: _plain(inner)
            for key, inner in value.items()
            if not any(word in key for word in _MEASURED)
        }
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _trained(room: pathlib.Path, printed: str) -> dict[str, str]:
    """Every array of the last checkpoint, and the metrics of every step."""
    import jax

    from ape_jax.runs.restore import restore

    model = restore(room / "run")
    leaves = jax.tree_util.tree_leaves_with_path(model.trainable)
    found = {jax.tree_util.keystr(path): _digest(leaf.tobytes()) for path, leaf in leaves}
    lines = (room / "run/metrics.jsonl").read_text().splitlines()
    by_step = {}
    for line in lines:  # A step that was trained again is there twice, with the same figures.
        values = _plain(json.loads(line))
        by_step.setdefault(values.get("step"), {}).update(values)
    return found | {"metrics": _digest(json.dumps(by_step, sort_keys=True).encode())}


def _said(room: pathlib.Path, printed: str) -> dict[str, str]:
    """The JSON that was printed."""
    return {"printed": _digest(json.dumps(_plain(json.loads(printed)), sort_keys=True).encode())}


def _studied(room: pathlib.Path, printed: str) -> dict[str, str]:
    """The figures of every run of a study."""
    found = {}
    for path in sorted((room / "study").rglob("summary.json")):
        values = json.loads(path.read_text())
        text = json.dumps(_plain(values.get("eval", values)), sort_keys=True)
        found[str(path.relative_to(room))] = _digest(text.encode())
    assert found, "the study left no summary"
    return found


def _nothing(room: pathlib.Path, printed: str) -> dict[str, str]:
    return {}


def _run(module: str, *words: str) -> Callable[[pathlib.Path], list[str]]:
    return lambda room: [f"ape_jax.{module}", *(word.format(room=room) for word in words)]


_CONFIG = ("--config={room}/config.py", "--config.cache.dir={room}/cache/features")
COMMANDS = {
    "train": Command(
        "main",
        _run("main", *_CONFIG, "--workdir={room}/run", "--report=false"),
        ("run", "cache"),
        False,
        _trained,
    ),
    "extract": Command(
        "extract",
        _run("extract", *_CONFIG, "--workdir={room}/run"),
        ("cache/features",),
        False,
        _nothing,
    ),
    "study": Command(
        "study", _run("study", *_CONFIG, "--workdir={room}/study"), ("study",), False, _studied
    ),
    "index": Command(
        "index",
        _run("index", "--workdir={room}/run", "--images={room}/images", "--out={room}/index"),
        ("index",),
        True,
        _nothing,
    ),
    "export": Command(
        "export",
        _run("export", "--workdir={room}/run", "--out={room}/out", "--format=jax"),
        ("out",),
        True,
        _nothing,
    ),
    "evaluate": Command(
        "evaluate", _run("evaluate", "--workdir={room}/run", "--json"), ("cache",), True, _said
    ),
    "page": Command(
        "page",
        _run("page", "--workdir={room}/run", "--port={{port}}"),
        ("cache", "tmp"),
        True,
        _nothing,
    ),
}


def answer(port: int, deadline: float) -> str:
    """What a page answers to its first question, once it is there; '' where it is not."""
    address = f"http://127.0.0.1:{port}"
    while True:
        try:
            with urllib.request.urlopen(f"{address}/config", timeout=5) as config:
                functions = json.load(config)["dependencies"]
            break
        except OSError:
            if time.monotonic() > deadline:
                return ""
            time.sleep(0.05)
    number = next(one["id"] for one in functions if len(one["inputs"]) == 3)
    asked = {"fn_index": number, "session_hash": "s", "data": ["a red bar", "shapes", 3]}
    question = urllib.request.Request(
        f"{address}/gradio_api/queue/join",
        json.dumps(asked).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        urllib.request.urlopen(question, timeout=20).close()
        path = "/gradio_api/queue/data?session_hash=s"
        with urllib.request.urlopen(address + path, timeout=20) as events:
            for line in events:
                if b"process_completed" in line:
                    (gallery, _) = json.loads(line.partition(b":")[2])["output"]["data"]
                    return json.dumps([picture["caption"] for picture in gallery])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return ""


def call(words: list[str], room: pathlib.Path) -> int:
    """Runs a command as if the process were its own; gives the exit code."""
    import importlib
    import threading
    import traceback

    module = importlib.import_module(words[0])
    from ape_jax.terminal import command

    os.environ |= {"APE_JAX_CACHE": str(room / "cache"), "TMPDIR": str(room / "tmp")}
    os.chdir(room)
    sys.argv = words
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        command.run(module.main)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(bool(error.code))
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        threading._shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        pass
    return code
