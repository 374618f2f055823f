"""Two real processes that talk over gloo: what a single one cannot show."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from ape_jax import config as config_lib
from tests import compiling

PLACE = """
import jax, numpy as np
from jax.sharding import AxisType, Mesh
from ape_jax.parallel import hosts, mesh as mesh_lib
with hosts.cluster():
    # As on a torus: neighbours in the mesh belong to different processes.
    devices = np.array(jax.devices())[[0, 2, 1, 3]]
    mesh = Mesh(devices, ("data",), axis_types=(AxisType.Auto,))
    placed = mesh_lib.place_whole_batch({"x": np.arange(7.0)}, mesh, 8)["x"]
    whole = jax.jit(lambda x: x, out_shardings=mesh_lib.replicated(mesh))(placed)
    print("rows", np.asarray(whole).astype(int).tolist())
"""


# The features of the training set, through the cache, with shards so small that there are many.
EXTRACT = """
import hashlib, json, sys
from ape_jax import config as config_lib
from ape_jax.features import jobs
from ape_jax.features.dataset import FeatureStore
from ape_jax.parallel import hosts
from ape_jax.runs import build
from ape_jax.training import extraction, run
from ape_jax.training.input import opened
jobs.SHARD_VIEWS, jobs.SHARD_CAPTIONS = 8, 8
config = config_lib.resolve(config_lib.unflatten(json.load(open(sys.argv[1]))))
with hosts.cluster():
    caches = extraction.extract(config, sys.argv[2])["caches"]
    made = run.prepare(config, opened.sources(config), build.load_towers(config), FeatureStore())
    data = made.dataset.pooled[:].tobytes() + made.dataset.tokens.flat[:].tobytes()
    print("encoded", sum(cache["encoded"] for cache in caches))
    print("features", hashlib.sha256(data).hexdigest())
"""


# Training from disk; the losses of all steps.
TRAIN = """
import json, pathlib, sys
import jax
from ape_jax import config as config_lib
from ape_jax.parallel import hosts
from ape_jax.training import loop
config = config_lib.resolve(config_lib.unflatten(json.load(open(sys.argv[1]))))
with hosts.cluster():
    assert jax.device_count() == 8
    loop.train_and_evaluate(config, pathlib.Path(sys.argv[2]))
"""


def cluster_of(count, devices=2):
    """The environment of each of so many processes with so many devices."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    own = f"--xla_force_host_platform_device_count={devices}"
    common = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": " ".join((*compiling.QUICK, own)),
    }
    if count == 1:
        return [common]
    cluster = {**common, "JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count)}
    return [{**cluster, "JAX_PROCESS_ID": str(i)} for i in range(count)]


def outputs(count, *arguments, timeout=120, devices=2):
    """What each of so many processes prints."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", *map(str, arguments)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for env in cluster_of(count, devices)
    ]
    printed = []
    for process in processes:
        out, err = process.communicate(timeout=timeout)
        assert process.returncode == 0, err
        printed.append(out.splitlines())
    return printed


def test_rows_of_a_whole_batch_keep_their_places_on_any_mesh():
    for printed in outputs(2, PLACE):
        assert "rows [0, 1, 2, 3, 4, 5, 6, 6]" in printed


def test_processes_share_an_extraction_and_its_bytes_are_those_of_one(tiny_config, tmp_path):
    tiny_config.data.eval = {}
    tiny_config.cache.views, tiny_config.augment.flip = 2, True
    files, features = {}, set()
    for count in (1, 2):
        root = tmp_path / str(count)
        root.mkdir()
        tiny_config.cache.dir = str(root / "features")
        flat = config_lib.flatten(config_lib.resolve(tiny_config))
        (root / "config.json").write_text(json.dumps(flat))
        printed = outputs(count, EXTRACT, root / "config.json", root / "run", timeout=280)
        encoded = [int(line.split()[1]) for out in printed for line in out if "encoded" in line]
        assert sum(encoded) == 48 + 48 and min(encoded) > 0
        features |= {line for out in printed for line in out if "features" in line}
        found = (root / "features").rglob("*")
        # Notes of what was verified hold the times of files.
        files[count] = {
            p.name: p.read_bytes() for p in found if p.is_file() and p.name != "verified.json"
        }
    assert len(features) == 1 and files[1] == files[2]


@pytest.mark.slow
def test_one_process_two_and_four_train_to_the_same_losses_from_disk(tiny_config, tmp_path):
    tiny_config.cache.place, tiny_config.cache.dir = "disk", str(tmp_path / "features")
    tiny_config.cache.views, tiny_config.augment.flip = 3, True
    tiny_config.train.log_every, tiny_config.train.steps = 1, 12
    tiny_config.train.checkpoint_every = 0
    flat = config_lib.flatten(config_lib.resolve(tiny_config))
    (tmp_path / "config.json").write_text(json.dumps(flat))
    losses = {}
    for count in (1, 2, 4):
        workdir = tmp_path / f"run-{count}"
        arguments = (TRAIN, tmp_path / "config.json", workdir)
        outputs(count, *arguments, timeout=400, devices=8 // count)
        lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
        losses[count] = [line["train/loss"] for line in lines if "train/loss" in line]
    assert len(losses[1]) == 12
    for count in (2, 4):
        np.testing.assert_allclose(losses[count], losses[1], rtol=1e-5)
