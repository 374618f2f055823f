"""A cluster is joined only where a launcher made one."""

import pytest

from ape_jax.parallel import hosts

LAUNCHERS = (
    *("JAX_COORDINATOR_ADDRESS", "TPU_WORKER_HOSTNAMES"),
    *("SLURM_NTASKS", "SLURM_PROCID", "SLURM_STEP_NODELIST"),
)


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "a"}, False),
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "a,b"}, True),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, False),  # A batch script without srun.
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1"}, True),
    ],
)
def test_cluster_is_recognised_by_what_launchers_set(monkeypatch, env, expected):
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert hosts.in_cluster() is expected
