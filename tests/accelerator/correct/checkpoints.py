"""Checkpoints that cross over: written on the processor and taken up on the device, and back."""

from __future__ import annotations

import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent import futures
from typing import Any

import jax
import numpy as np

from tests import tiny_world
from tests.accelerator.correct import resume, runs
from tests.accelerator.figures import Figures, say
from tests.accelerator.settings import Settings, environment

# The two finish a run of 30 steps on different devices: sums in another order, of which Adam makes
# steps of up to lr = 1e-3 where a gradient is nothing but rounding. The loss is of order one.
LOSS = 1e-2


def run(settings: Settings, figures: Figures) -> None:
    """Prints whether parameters keep their bits, and whether the run ends well on the other."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        tiny_world.write(root)
        path = tiny_world.write_config(resume.config_of("ape", root), root)
        ways = {"processor": ("cpu", settings.device), "device": (settings.device, "cpu")}
        workdirs = {name: root / name for name in ways}
        started = [runs.start(path, workdirs[name], on) for name, (on, _) in ways.items()]
        with futures.ThreadPoolExecutor() as pool:
            list(pool.map(runs.kill_after, started, workdirs.values(), [5, 5]))
            say(f"written, {settings.left():.0f} s left")
            # Before anything goes on from them.
            devices = list(dict.fromkeys(("cpu", settings.device)))
            read = dict(zip(devices, pool.map(lambda x: _read(workdirs.values(), x), devices)))
        written = [_hashes(runs.parameters(workdir)) for workdir in workdirs.values()]
        runs.finish(*(runs.start(path, workdirs[name], to) for name, (_, to) in ways.items()))
        ends = {name: runs.losses(workdir)[-1] for name, workdir in workdirs.items()}
    for place, (name, want) in enumerate(zip(ways, written, strict=True)):
        for device, found in read.items():
            differ = sum(want[key] != found[place].get(key) for key in want)
            title = f"written on the {name}, its bits on the {device}"
            figures.holds(title, found[place] == want, f"{differ} of {len(want)} arrays differ")
    off = abs(ends["processor"] - ends["device"]) / abs(ends["processor"])
    figures.checked("last losses of the two ways", off, bound=LOSS, unit="of the loss")


def _read(workdirs: Iterable[pathlib.Path], device: str) -> list[dict[str, str]]:
    """Hashes of the parameters of some work directories as a device has them."""
    command = [sys.executable, "-m", __name__, *map(str, workdirs)]
    done = subprocess.run(
        command, env=environment(device), stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Reads each work directory's model, and prints the hashes of what lies on the device."""
    from ape_jax.runs.restore import restore

    found = []
    for workdir in sys.argv[1:]:
        model = restore(pathlib.Path(workdir))
        found.append(_hashes(model.trainable))
        places = {device for x in jax.tree.leaves(model.trainable) for device in x.devices()}
        say(f"{workdir} on {places}")
    print(json.dumps(found))


def _hashes(tree: Any) -> dict[str, str]:
    """The hash of each array, by its path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): _hash(x) for path, x in leaves}


def _hash(x: object) -> str:
    array = np.asarray(x)
    return hashlib.sha256(str((array.dtype, array.shape)).encode() + array.tobytes()).hexdigest()


if __name__ == "__main__":
    main()
