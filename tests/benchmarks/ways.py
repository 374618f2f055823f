"""Counts the files and rooms of ape_jax that three ways through it enter, as one JSON line.

cd TREE && PYTHONPATH=. python .../tests/benchmarks/ways.py     # TREE: this one, or an older one

The ways: `pair`, a pair from its file to the loss (a run of two steps from fresh caches); `weight`,
a tower's weights from their file to an embedding; `encode_text`, a loaded run to one caption's
vector. A file counts if Python runs one of its functions. What an import runs does not count: all
modules are imported before.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pathlib
import pkgutil
import re
import runpy
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

_APART = re.compile(r"__main__|script|shipped|encode_|convert_onnx|_torch_script")
_STEPS = ("--config.train.steps=2", "--config.optim.warmup=1", "--config.train.batch=16")


def entered(run: Callable[[], object]) -> set[str]:
    """Files of ape_jax, by their path in the package, of which `run` calls a function."""
    import ape_jax

    root = pathlib.Path(ape_jax.__file__).parent
    for module in pkgutil.walk_packages(ape_jax.__path__, "ape_jax."):
        # Commands define flags, and what is shipped or run apart is not a part of a way.
        if module.name.count(".") > 1 and not _APART.search(module.name):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)
    files: set[str] = set()

    def note(frame: Any, event: str, _: object) -> None:
        if event == "call":
            files.add(frame.f_code.co_filename)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    paths = (pathlib.Path(file) for file in files)
    return {str(path.relative_to(root)) for path in paths if path.is_relative_to(root)}


def pair(workdir: str) -> None:
    """Trains for two steps, in this process."""
    config = ["--config", "configs/few_pairs.py:runlocal", f"--config.cache.dir={workdir}/cache"]
    sys.argv = ["main", *config, *_STEPS, "--workdir", workdir, "--report=false"]
    runpy.run_module("ape_jax.main", run_name="__main__", alter_sys=True)


def weight() -> None:
    """Loads a text tower and encodes a caption with it."""
    from ape_jax import towers

    tower = towers.load("demo:minilm", dtype="float32")
    tower(tower.prepare(["a cat"]))


def encode_text(workdir: str) -> None:
    """Loads a run and encodes a caption."""
    import ape_jax

    ape_jax.load(workdir).encode_text(["a cat"])


def _count(way: str, workdir: str) -> set[str]:
    if way == "weight":
        return entered(weight)
    run = {"pair": pair, "encode_text": encode_text}[way]

    def quiet() -> None:
        try:
            run(workdir)
        except SystemExit as end:  # The command's own end.
            if end.code:
                raise

    return entered(quiet)


def main() -> None:
    """Each way in a process of its own, so that nothing is compiled or cached before."""
    if len(sys.argv) > 1:
        way, workdir, out = sys.argv[1:4]
        pathlib.Path(out).write_text(json.dumps(sorted(_count(way, workdir))))
        return
    counts: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for way in ("pair", "weight", "encode_text"):
            out = os.path.join(scratch, f"{way}.json")
            arguments = [sys.executable, __file__, way, os.path.join(scratch, "run"), out]
            done = subprocess.run(arguments, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            files = json.loads(pathlib.Path(out).read_text())
            rooms = sorted({file.partition("/")[0].removesuffix(".py") for file in files})
            counts[way] = {"files": len(files), "rooms": len(rooms), "names": files}
    if "APE_JAX_WAYS" not in os.environ:  # Names only on request.
        for count in counts.values():
            del count["names"]
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
