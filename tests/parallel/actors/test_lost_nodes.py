"""A Ray cluster of two nodes, one of which is killed in the middle: the bytes of one process."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import uuid

import pytest

from ape_jax import config as config_lib

pytest.importorskip("ray", reason="ray is not installed (ape_jax[ray])")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(580)]

# A config file, which actors execute too: blocks are small and slow, and each that is begun is
# noted with its node.
RECIPE = """
import json, os, time
import ml_collections
from ape_jax import config
from ape_jax.features import jobs
from ape_jax.runs import encoder

root = {root!r}

def noted(encode):
    def note(self, block, *rest):
        node = os.environ.get("RAY_RAYLET_PID")
        if node:
            with open(root + "/begun", "a") as file:
                first = getattr(block, "start", None)
                name = block[0].image.name if first is None else f"{{self.what}} {{first}}"
                file.write(f"{{node}} {{os.getpid()}} {{name}}\\n")
            time.sleep({pause})
        return encode(self, block, *rest)
    return note

if not hasattr(jobs, "patched"):
    jobs.patched = True
    jobs.SHARD_VIEWS, jobs.SHARD_CAPTIONS = 4, 8
    jobs.ImageJob.encode = noted(jobs.ImageJob.encode)
    jobs.CaptionJob.encode = noted(jobs.CaptionJob.encode)
    encoder.Encoder.encode_readable = noted(encoder.Encoder.encode_readable)

def get_config(arg=""):
    flat = json.load(open(root + "/flat.json"))
    return ml_collections.ConfigDict(config.unflatten(flat))
"""

# Does both in this process, then both on two nodes, and kills the second node each time, after it
# has begun its third block.
TWO_NODES = """
import json, os, pathlib, sys, threading, time
import ray
from ray.cluster_utils import Cluster
from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.commands import index
from ape_jax.parallel.actors import RayCluster
from ape_jax.search import build
from ape_jax.training import extraction

root, images, run = map(pathlib.Path, sys.argv[1:])
recipe = str(root / "config.py")
build._CHUNK = 4

def extract(name, cluster=None):
    config = recipes.read(recipe)
    config.cache.dir = str(root / name / "features")
    extraction.extract(config_lib.resolve(config), root / name / "run", cluster, recipe)

def indexed(name, cluster=None):
    asks = index.Questions(texts=(), images=(), k=1, exact=True)
    table = index.Table(path="", dtype="float32")
    index.index(str(run), str(images), str(root / name / "index"), asks, table, cluster)

def begun(node):
    file = root / "begun"
    lines = file.read_text().splitlines() if file.exists() else []
    return sum(line.startswith(f"{node} ") for line in lines)

extract("process")
indexed("process")
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
for work in (extract, indexed):
    doomed = cluster.add_node(num_cpus=1)
    if not ray.is_initialized():
        # What `command` executes, the index has no config to bring along.
        def patch(recipe=recipe):
            from ape_jax import recipes
            recipes.read(recipe)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error",
                 runtime_env={"worker_process_setup_hook": patch})
    raylet = doomed.all_processes["raylet"][0].process.pid
    killer = threading.Thread(target=lambda: [
        *iter(lambda: (time.sleep(0.05), begun(raylet) >= 3)[1], True),
        cluster.remove_node(doomed, allow_graceful=False),
        print("killed", raylet, flush=True)], daemon=True)
    killer.start()
    work("ray", RayCluster(actors=2))
    killer.join(timeout=1)
    assert not killer.is_alive(), "it ended before the node did"
ray.shutdown()
cluster.shutdown()
"""


def tree(root):
    """The files below a folder."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def left_over(mark):
    """The processes with this mark in their environment, once they had time to end."""
    for _ in range(40):
        found = []
        for environ in pathlib.Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark.encode() in environ.read_bytes():
                    found.append((environ.parent / "cmdline").read_bytes()[:200])
            except OSError:
                continue
        if not found:
            return []
        time.sleep(0.5)
    return found


@pytest.fixture
def started(tmp_path, tiny_config):
    """`started(pause, *words)`: a process with one device, and the mark of all that it starts."""
    tiny_config.data.eval = {}
    tiny_config.cache.views, tiny_config.augment.flip = 2, True
    tiny_config.cache.dir = str(tmp_path / "features")
    mark = f"APE_JAX_TEST={uuid.uuid4().hex}"

    def start(pause, *words):
        flat = config_lib.flatten(config_lib.resolve(tiny_config))
        (tmp_path / "flat.json").write_text(json.dumps(flat))
        recipe = RECIPE.format(root=str(tmp_path), pause=pause)
        (tmp_path / "config.py").write_text(recipe)
        environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": os.getcwd()}
        environment |= dict([mark.split("=")])
        return subprocess.Popen(
            [sys.executable, *map(str, words)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    yield start
    assert left_over(mark) == []


def test_extraction_and_index_survive_a_node_with_the_bytes_of_one_process(
    started, tiny, tiny_run, tmp_path
):
    process = started(0.7, "-c", TWO_NODES, tmp_path, tiny, tiny_run)
    out, err = process.communicate(timeout=540)
    assert process.returncode == 0, err
    killed = [line.split()[1] for line in out.splitlines() if line.startswith("killed")]
    assert len(killed) == 2
    begun = [line.split(" ", 2) for line in (tmp_path / "begun").read_text().splitlines()]
    for node, what in zip(killed, ("training", str(tiny))):
        ours = [(where, name) for where, _, name in begun if what in name]
        # The last block that the lost node has begun was begun again elsewhere.
        lost = [name for where, name in ours if where == node][-1]
        assert [where for where, name in ours if name == lost][-1] != node
    assert tree(tmp_path / "ray/features") == tree(tmp_path / "process/features")
    assert tree(tmp_path / "ray/index") == tree(tmp_path / "process/index")
    assert len(list((tmp_path / "ray/features").glob("*/shards.json"))) == 2
    assert "raylet" not in err and "Traceback" not in err


def test_interrupted_it_ends_at_once_and_goes_on_from_there(started, tmp_path):
    words = ["-m", "ape_jax.extract", f"--config={tmp_path}/config.py", "--engine=ray"]
    words += [f"--workdir={tmp_path}/run", "--actors=1"]
    process = started(0.5, *words)
    begun = tmp_path / "begun"
    while process.poll() is None and not (begun.exists() and begun.read_text().count("\n") > 2):
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # As a terminal does, to all of the foreground.
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err and "ray" not in err.replace("--engine", "")
    finished = len(list(tmp_path.glob("features/images-*/shard-*.json")))
    assert finished >= 1
    process = started(0, *words)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0 and f"({finished} of 12 shards are there)" in err
