"""Two processes whose devices are no neighbours in the mesh: one batch, streamed or resident."""

import os
import pathlib
import socket
import subprocess
import sys

BLOCKS = """
import sys
import jax, numpy as np
from jax.sharding import AxisType, Mesh
sys.path.insert(0, sys.argv[1])
import test_device_feed
from ape_jax.parallel import hosts, mesh as mesh_lib
with hosts.cluster():
    devices = np.array(jax.devices())[[0, 2, 3, 1]]
    mesh = Mesh(devices, ("data",), axis_types=(AxisType.Auto,))
    whole = jax.jit(lambda x: x, out_shardings=mesh_lib.replicated(mesh))
    seen = []
    for feed in test_device_feed.feeds(test_device_feed.make_dataset(), mesh, calls=4):
        blocks = [jax.tree.map(lambda x: np.asarray(whole(x)), b) for _, b in feed.blocks(2, 9)]
        seen.append(jax.tree.map(lambda x: x.tobytes(), blocks))
    print("same", seen[0] == seen[1], len(seen[0]))
    print("index", np.sort(blocks[0]["index"][3]).tolist())
"""


def test_streamed_and_resident_blocks_are_the_same_on_any_mesh():
    import numpy as np

    from ape_jax.data.sampling import Order

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
            [sys.executable, "-c", BLOCKS, str(folder)],
            env={**os.environ, **cluster, "JAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    expected = np.sort(Order(50, 3).indices(3, 16)).tolist()
    for process in processes:
        out, _ = process.communicate(timeout=200)
        assert process.returncode == 0
        assert "same True 3" in out
        assert f"index {expected}" in out
