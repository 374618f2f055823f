"""MKL's products inside XLA programs, in processes with the one device that they need."""

import importlib.metadata
import os
import subprocess
import sys

import pytest

from ape_jax.nn import mkl

CODE = """
import sys
{before}
import jax
import jax.numpy as jnp
import numpy as np
from ape_jax.nn.matmul import product

rng = np.random.default_rng(0)
a, b, g = (rng.normal(size=s) for s in ((2, 2000, 300), (300, 512), (2, 2000, 512)))
want = a @ b, g @ b.T, np.einsum("bik,bim->km", a, g)

@jax.jit
def run(a, b, g):
    def scanned(a, b):  # Inside a loop, as in the towers.
        return jax.lax.scan(lambda c, _: (c, product(a, b, dtype)), 0, length=2)[1][1]
    out, back = jax.vjp(scanned, a, b)
    return (out, *back(g))

for dtype in (jnp.float32, jnp.bfloat16):
    text = str(jax.make_jaxpr(run)(*(jnp.asarray(x, jnp.float32) for x in (a, b, g))))
    assert ("ape_jax_mkl_gemm" in text) == {used}, text
    got = run(*(jnp.asarray(x, jnp.float32) for x in (a, b, g)))
    for x, y in zip(got, want):
        error = np.linalg.norm(np.asarray(x, np.float64) - y) / np.linalg.norm(y)
        assert x.dtype == jnp.float32 and error < (1e-6 if dtype == jnp.float32 else 4e-3), error
print("right")
"""

FORCED = {"APE_JAX_MKL": "1"}  # Also on processors where it is slower.


@pytest.fixture(scope="module", autouse=True)
def _installed():
    try:
        importlib.metadata.version("mkl")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("MKL is not installed (ape_jax[cpu])")


def run(before: str = "", used: bool = True, devices: int = 1, **environment: str) -> None:
    flags = f"--xla_force_host_platform_device_count={devices}"
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(before=before, used=used)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, **FORCED, **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.stdout == "right\n", done.stderr


def test_products_and_gradients_equal_numpy():
    run()


def test_torch_in_the_same_process_does_not_break_them():
    run(before="import torch; torch.ones(600, 600) @ torch.ones(600, 600)")


def test_the_environment_turns_it_off():
    run(used=False, APE_JAX_MKL="0")


@pytest.mark.parametrize("maker", ["AuthenticAMD", "GenuineIntel"])
def test_without_a_word_it_multiplies_on_processors_of_intel(tmp_path, maker):
    described = tmp_path / "cpuinfo"
    described.write_text(f"processor\t: 0\nvendor_id\t: {maker}\nmodel name\t: one\n")
    assert mkl.is_intel(str(described)) == (maker == "GenuineIntel")
    assert not mkl.is_intel(str(tmp_path / "none"))
    run(used=mkl.is_intel(), APE_JAX_MKL="")


def test_several_devices_keep_xlas_products():
    run(used=False, devices=2)


def test_small_products_stay_with_xla():
    assert not mkl.takes(256, 256, 256)
