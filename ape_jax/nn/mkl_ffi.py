"""XLA's foreign function interface for handlers written in Python.

The structures are those of `xla/ffi/api/c_api.h` (API version 0.3), which jaxlib ships; later minor
versions only append to them.
"""

from __future__ import annotations

import ctypes as ct
from collections.abc import Callable

import jax

_MAJOR, _MINOR = 0, 3
_METADATA = 1  # XLA_FFI_Extension_Metadata.
BF16 = 16  # XLA_FFI_DataType_BF16.


class Extension(ct.Structure):
    """XLA_FFI_Extension_Base."""

    _fields_ = [("struct_size", ct.c_size_t), ("type", ct.c_int), ("next", ct.c_void_p)]


class ApiVersion(ct.Structure):
    """XLA_FFI_Api_Version."""

    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("extension_start", ct.c_void_p),
        ("major", ct.c_int),
        ("minor", ct.c_int),
    ]


class Metadata(ct.Structure):
    """XLA_FFI_Metadata."""

    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("api_version", ApiVersion),
        ("traits", ct.c_uint32),
        ("state_type_id", ct.c_int64),
    ]


class MetadataExtension(ct.Structure):
    """XLA_FFI_Metadata_Extension."""

    _fields_ = [("base", Extension), ("metadata", ct.POINTER(Metadata))]


class Buffer(ct.Structure):
    """XLA_FFI_Buffer."""

    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("extension_start", ct.c_void_p),
        ("dtype", ct.c_int),
        ("data", ct.c_void_p),
        ("rank", ct.c_int64),
        ("dims", ct.POINTER(ct.c_int64)),
    ]


class Buffers(ct.Structure):
    """XLA_FFI_Args and XLA_FFI_Rets: pointers to buffers."""

    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("extension_start", ct.c_void_p),
        ("size", ct.c_int64),
        ("types", ct.c_void_p),
        ("values", ct.POINTER(ct.POINTER(Buffer))),
    ]


class Scalar(ct.Structure):
    """XLA_FFI_Scalar of 32 bits."""

    _fields_ = [("dtype", ct.c_int), ("value", ct.POINTER(ct.c_int32))]


class Attributes(ct.Structure):
    """XLA_FFI_Attrs where all are scalars of 32 bits, sorted by name."""

    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("extension_start", ct.c_void_p),
        ("size", ct.c_int64),
        ("types", ct.c_void_p),
        ("names", ct.c_void_p),
        ("values", ct.POINTER(ct.POINTER(Scalar))),
    ]


class CallFrame(ct.Structure):
    """XLA_FFI_CallFrame."""

    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("extension_start", ct.POINTER(Extension)),
        ("api", ct.c_void_p),
        ("ctx", ct.c_void_p),
        ("stage", ct.c_int),
        ("args", Buffers),
        ("rets", Buffers),
        ("attrs", Attributes),
        ("future", ct.c_void_p),
    ]


_HANDLER = ct.CFUNCTYPE(ct.c_void_p, ct.POINTER(CallFrame))
_kept: list[object] = []  # XLA keeps an address; the function behind it must outlive the process.


def register(target: str, execute: Callable[[CallFrame], None]) -> None:
    """Makes `execute` the CPU's `target` of `jax.ffi.ffi_call`.

    Args:
      target: the name.
      execute: reads the arguments and fills the results; it runs on XLA's threads and must not
        raise, since nothing above it could tell the program.
    """

    def handle(pointer: ct._Pointer[CallFrame]) -> None:
        frame = pointer.contents
        extension = frame.extension_start
        if extension and extension.contents.type == _METADATA:  # A question, not a call.
            version = ct.cast(extension, ct.POINTER(MetadataExtension)).contents.metadata.contents
            version.api_version.major, version.api_version.minor = _MAJOR, _MINOR
        else:
            execute(frame)

    handler = _HANDLER(handle)
    _kept.append(handler)
    jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(handler), platform="cpu")
