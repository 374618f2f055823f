"""Two processes whose devices are no neighbours in the mesh: one batch, wherever features live."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np

from ape_jax.data.sampling import Order

BLOCKS = """
import pathlib, sys
import jax, numpy as np
from jax.sharding import AxisType, Mesh
sys.path.insert(0, sys.argv[1])
import test_device_feed
from ape_jax.parallel import hosts, mesh as mesh_lib
from ape_jax.storage.rows.mapped import MappedRows
read, take = {"pooled": [], "tokens": []}, MappedRows.take
def noted(rows, indices, *args, **kwargs):
    read[rows.parts[0].path.name.split("-")[0]].append(indices.reshape(-1))
    return take(rows, indices, *args, **kwargs)
with hosts.cluster():
    devices = np.array(jax.devices())[[0, 2, 3, 1]]
    mesh = Mesh(devices, ("data",), axis_types=(AxisType.Auto,))
    whole = jax.jit(lambda x: x, out_shardings=mesh_lib.replicated(mesh))
    seen, memory = [], test_device_feed.make_dataset()
    folder = pathlib.Path(sys.argv[2]) / str(jax.process_index())
    folder.mkdir()
    disk = test_device_feed.on_disk(memory, folder)
    kinds = [*test_device_feed.feeds(memory, mesh, calls=4)]
    kinds += test_device_feed.feeds(disk, mesh, calls=4)[:1]
    for feed in kinds:
        blocks = [jax.tree.map(lambda x: np.asarray(whole(x)), b) for _, b in feed.blocks(2, 9)]
        seen.append(jax.tree.map(lambda x: x.tobytes(), blocks))
    print("same", seen[0] == seen[1] == seen[2], len(seen[0]))
    print("index", np.sort(blocks[0]["index"][3]).tolist())
    MappedRows.take = noted
    for _, block in kinds[2].blocks(0, 3): pass
    tokens, images = map(np.concatenate, (read["tokens"], read["pooled"]))
    print("images", np.sort(images // memory.pooled.shape[1]).tolist())
    print("tokens", len(tokens), int(np.asarray(whole(block["lengths"]))[:3].sum()))
"""


def test_blocks_are_the_same_on_any_mesh_and_each_process_reads_rows_of_its_own(tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    cluster = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": "2",
    }
    folder = pathlib.Path(__file__).parent
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BLOCKS, str(folder), str(tmp_path)],
            env={**os.environ, **cluster, "JAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    expected = np.sort(Order(50, 3).indices(3, 16)).tolist()
    images, tokens = [], []
    for process in processes:
        out, _ = process.communicate(timeout=200)
        assert process.returncode == 0
        assert "same True 3" in out
        assert f"index {expected}" in out
        lines = dict(line.split(" ", 1) for line in out.splitlines())
        images.append(json.loads(lines["images"]))
        tokens.append([int(number) for number in lines["tokens"].split()])
    # In three batches of one epoch no record comes twice: half of them are read by each process.
    steps = np.concatenate([Order(50, 3).indices(step, 16) for step in range(3)])
    assert [len(rows) for rows in images] == [24, 24]
    assert sorted(images[0] + images[1]) == sorted(steps.tolist())
    assert tokens[0][0] + tokens[1][0] == tokens[0][1] and min(tokens)[0] > 0
