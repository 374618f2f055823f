"""Matrix products by Intel's MKL inside XLA's CPU programs, where it is installed.

XLA:CPU leaves much of an x86 processor unused: half to two thirds of MKL's pace in f32 and in bf16
(`tests/benchmarks/head_step.py` prints both). `pip install "ape_jax[cpu]"` brings MKL;
importing this module, as `ape_jax.nn` then does, makes the products of `nn.matmul` call it.
`APE_JAX_MKL=0` keeps to XLA.

Nothing changes on accelerators. On several CPU devices XLA's own products are used, since XLA
cannot split a foreign call over a mesh.
"""

from __future__ import annotations

import ctypes as ct
import ctypes.util
import functools
import importlib.metadata
import os

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ape_jax.errors import UserError
from ape_jax.nn import matmul as products
from ape_jax.nn import mkl_ffi

_TARGET = "ape_jax_mkl_gemm"
_ROW_MAJOR, _AS_IS, _TRANSPOSED = 101, 111, 112  # CBLAS.
_GNU_THREADS = 3  # PyTorch's too: with Intel's beside them products came out wrong.
# Waking MKL's threads and packing cost more than they bring under so many multiply-adds.
_WORTHWHILE = 1 << 28


def takes(n: int, k: int, m: int) -> bool:
    """Whether the product of an [n, k] and a [k, m] matrix goes to MKL here.

    Raises:
      UserError: where MKL is there and its products are wrong.
    """
    alone = jax.default_backend() == "cpu" and jax.device_count() == 1
    return n * k * m >= _WORTHWHILE and alone and _registered()


def matmul(
    a: Float[Array, "..."],
    b: Float[Array, "..."],
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> Float[Array, "n m"]:
    """`a @ b` of two matrices, both bf16 or both f32, accumulated and returned in f32.

    Args:
      a: [n, k], or [k, n] with `transpose_a`.
      b: [k, m], or [m, k] with `transpose_b`.
      transpose_a: whether `a` is transposed first, which costs no copy.
      transpose_b: whether `b` is.
    """
    n, m = a.shape[1 if transpose_a else 0], b.shape[0 if transpose_b else 1]
    out = jax.ShapeDtypeStruct((n, m), jnp.float32)
    call = jax.ffi.ffi_call(_TARGET, out, vmap_method="sequential")
    return call(a, b, transpose_a=np.int32(transpose_a), transpose_b=np.int32(transpose_b))


@functools.cache
def _registered() -> bool:
    path = _library_path()
    if path is None or os.environ.get("APE_JAX_MKL") == "0":
        return False
    # OpenMP's threads would spin after each product, on the cores that XLA goes on with.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    library = _load(path)
    _check(library)
    mkl_ffi.register(_TARGET, functools.partial(_execute, library))
    return True


def _library_path() -> str | None:
    try:
        files = importlib.metadata.files("mkl") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [file for file in files if file.name.startswith("libmkl_rt.so")]
    return os.fspath(found[0].locate()) if found and ctypes.util.find_library("gomp") else None


def _load(path: str) -> ct.CDLL:
    library = ct.CDLL(path)
    library.MKL_Set_Threading_Layer(_GNU_THREADS)
    matrix = (ct.c_void_p, ct.c_int)
    for function in (library.cblas_sgemm, library.cblas_gemm_bf16bf16f32):
        function.restype = None
        scalars = (ct.c_int,) * 6
        function.argtypes = [*scalars, ct.c_float, *matrix, *matrix, ct.c_float, *matrix]
    return library


def _check(library: ct.CDLL) -> None:
    """Two libraries of threads in one process have silently broken products before."""
    rng = np.random.default_rng(0)
    for dtype, gemm in (
        (np.float32, library.cblas_sgemm),
        (jnp.bfloat16, library.cblas_gemm_bf16bf16f32),
    ):
        a, b = (rng.normal(size=(512, 512)).astype(dtype) for _ in range(2))
        out = np.empty((512, 512), np.float32)
        data = [x.ctypes.data for x in (a, b, out)]
        form = (_ROW_MAJOR, _AS_IS, _TRANSPOSED)
        gemm(*form, 512, 512, 512, 1.0, data[0], 512, data[1], 512, 0.0, data[2], 512)
        if not np.allclose(out, a.astype(np.float64) @ b.astype(np.float64).T, atol=1e-3):
            raise UserError("MKL's products are wrong in this process; set APE_JAX_MKL=0")


def _execute(library: ct.CDLL, frame: mkl_ffi.CallFrame) -> None:
    a, b = (frame.args.values[i].contents for i in range(2))
    out = frame.rets.values[0].contents
    transpose_a, transpose_b = (frame.attrs.values[i].contents.value[0] for i in range(2))
    gemm = library.cblas_gemm_bf16bf16f32 if a.dtype == mkl_ffi.BF16 else library.cblas_sgemm
    form = [_TRANSPOSED if t else _AS_IS for t in (transpose_a, transpose_b)]
    n, m, k = out.dims[0], out.dims[1], a.dims[0 if transpose_a else 1]
    rows = (a.data, a.dims[1]), (b.data, b.dims[1])  # Each with its leading dimension.
    gemm(_ROW_MAJOR, *form, n, m, k, 1.0, *rows[0], *rows[1], 0.0, out.data, m)


products.register(products.PlugIn(takes=takes, matmul=matmul))
