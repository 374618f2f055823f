"""Two real processes that talk over gloo: what a single one cannot show."""

import os
import socket
import subprocess
import sys

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


def test_rows_of_a_whole_batch_keep_their_places_on_any_mesh():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    cluster = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": "2",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PLACE],
            env={**os.environ, **cluster, "JAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    for process in processes:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert "rows [0, 1, 2, 3, 4, 5, 6, 6]" in out
