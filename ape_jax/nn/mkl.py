"""Matrix products by Intel's MKL inside XLA's CPU programs, where it is installed.

XLA:CPU leaves much of an Intel processor unused: half to two thirds of MKL's pace in f32 and in
bf16 (`tests/benchmarks/head_step.py` prints both). `pip install "ape_jax[cpu]"` brings MKL;
importing this module, as `ape_jax.nn` then does, makes the products of `nn.matmul` call it.
`APE_JAX_MKL=0` keeps to XLA. So do processors of other makers, where MKL takes code that is two to
four times slower than XLA's (`tests/benchmarks/products.py`); `APE_JAX_MKL=1` calls it there too.

Nothing changes on accelerators. On several CPU devices XLA's own products are used, since XLA
cannot split a foreign call over a mesh.
"""

from __future__ import annotations

import ctypes as ct
import ctypes.util
import functools
import importlib.metadata
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ape_jax.errors import UserError
from ape_jax.nn import matmul as products

_TARGET = "ape_jax_mkl_gemm"
_ROW_MAJOR, _AS_IS, _TRANSPOSED = 101, 111, 112  # CBLAS.
_GNU_THREADS = 3  # PyTorch's too: with Intel's beside them products came out wrong.
# Waking MKL's threads and packing cost more than they bring under so many multiply-adds.
_WORTHWHILE = 1 << 28


def takes(n: int, k: int, m: int) -> bool:
    """Tests whether the product of an [n, k] and a [k, m] matrix goes to MKL here.

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
    chosen = os.environ.get("APE_JAX_MKL", "")
    if path is None or chosen == "0" or not (chosen == "1" or is_intel()):
        return False
    # OpenMP's threads would spin after each product, on the cores that XLA goes on with.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    library = _load(path)
    _check(library)
    _register(functools.partial(_execute, library))
    return True


def is_intel(described: str = "/proc/cpuinfo") -> bool:
    """Whether the processor is one of Intel's.

    Args:
      described: the file in which Linux describes it.
    """
    try:
        with open(described, encoding="utf-8", errors="replace") as lines:
            return any(line.split()[-1:] == ["GenuineIntel"] for line in lines)
    except OSError:  # Not Linux.
        return False


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


def _execute(library: ct.CDLL, frame: _CallFrame) -> None:
    a, b = (frame.args.values[i].contents for i in range(2))
    out = frame.rets.values[0].contents
    transpose_a, transpose_b = (frame.attrs.values[i].contents.value[0] for i in range(2))
    gemm = library.cblas_gemm_bf16bf16f32 if a.dtype == _BF16 else library.cblas_sgemm
    form = [_TRANSPOSED if t else _AS_IS for t in (transpose_a, transpose_b)]
    n, m, k = out.dims[0], out.dims[1], a.dims[0 if transpose_a else 1]
    rows = (a.data, a.dims[1]), (b.data, b.dims[1])  # Each with its leading dimension.
    gemm(_ROW_MAJOR, *form, n, m, k, 1.0, *rows[0], *rows[1], 0.0, out.data, m)


# XLA's foreign function interface for handlers written in Python: the structures of its
# `xla/ffi/api/c_api.h` (API version 0.3), which jaxlib ships; later minor versions append to them.
_MAJOR, _MINOR = 0, 3
_METADATA = 1  # XLA_FFI_Extension_Metadata.
_BF16 = 16  # XLA_FFI_DataType_BF16.


class _Extension(ct.Structure):
    _fields_ = [("struct_size", ct.c_size_t), ("type", ct.c_int), ("next", ct.c_void_p)]


class _Sized(ct.Structure):
    """First fields of the structures that can be extended."""

    _fields_ = [("struct_size", ct.c_size_t), ("extension_start", ct.POINTER(_Extension))]


class _ApiVersion(_Sized):
    _fields_ = [("major", ct.c_int), ("minor", ct.c_int)]


class _Metadata(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("api_version", _ApiVersion),
        ("traits", ct.c_uint32),
        ("state_type_id", ct.c_int64),
    ]


class _MetadataExtension(ct.Structure):
    _fields_ = [("base", _Extension), ("metadata", ct.POINTER(_Metadata))]


class _Buffer(_Sized):
    _fields_ = [
        ("dtype", ct.c_int),
        ("data", ct.c_void_p),
        ("rank", ct.c_int64),
        ("dims", ct.POINTER(ct.c_int64)),
    ]


class _Buffers(_Sized):
    """XLA_FFI_Args and XLA_FFI_Rets."""

    _fields_ = [
        ("size", ct.c_int64),
        ("types", ct.c_void_p),
        ("values", ct.POINTER(ct.POINTER(_Buffer))),
    ]


class _Scalar(ct.Structure):
    """XLA_FFI_Scalar of 32 bits."""

    _fields_ = [("dtype", ct.c_int), ("value", ct.POINTER(ct.c_int32))]


class _Attributes(_Sized):
    """XLA_FFI_Attrs where all are scalars of 32 bits, sorted by name."""

    _fields_ = [
        ("size", ct.c_int64),
        ("types", ct.c_void_p),
        ("names", ct.c_void_p),
        ("values", ct.POINTER(ct.POINTER(_Scalar))),
    ]


class _CallFrame(_Sized):
    _fields_ = [
        ("api", ct.c_void_p),
        ("ctx", ct.c_void_p),
        ("stage", ct.c_int),
        ("args", _Buffers),
        ("rets", _Buffers),
        ("attrs", _Attributes),
        ("future", ct.c_void_p),
    ]


_HANDLER = ct.CFUNCTYPE(ct.c_void_p, ct.POINTER(_CallFrame))
_kept: list[object] = []  # XLA keeps an address; the function behind it must outlive the process.


def _register(execute: Callable[[_CallFrame], None]) -> None:
    """Makes `execute` the CPU's target of `jax.ffi.ffi_call`.

    It runs on XLA's threads and must not raise, since nothing above it could tell the program.
    """

    def handle(pointer: ct._Pointer[_CallFrame]) -> None:
        frame = pointer.contents
        extension = frame.extension_start
        if extension and extension.contents.type == _METADATA:  # A question, not a call.
            version = ct.cast(extension, ct.POINTER(_MetadataExtension)).contents.metadata.contents
            version.api_version.major, version.api_version.minor = _MAJOR, _MINOR
        else:
            execute(frame)

    handler = _HANDLER(handle)
    _kept.append(handler)
    jax.ffi.register_ffi_target(_TARGET, jax.ffi.pycapsule(handler), platform="cpu")


products.register(products.PlugIn(takes=takes, matmul=matmul))
