"""Nodes and weights of an ONNX file, without the onnx package.

A protobuf message is a run of fields, each a varint key (number << 3 | wire type) and a value. Only
the four messages and the few fields that a weight needs are read; all others are stepped over.
Every length is checked against what is left of its message before anything is sliced.

Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (Apache-2.0).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from ape_jax.errors import UserError

# Wire types.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# TensorProto.DataType of the types read here.
_DTYPES = {1: "<f4", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8"}
_MAX_RANK = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Node:
    """An operation of the graph: its name, type, and the names of what it reads and writes."""

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Graph:
    """The nodes in file order and the initializers by name (read-only views of the bytes)."""

    nodes: tuple[Node, ...]
    initializers: dict[str, np.ndarray]


def read_graph(data: bytes) -> Graph:
    """Reads the nodes and the raw initializers of an ONNX model.

    Args:
      data: the whole file; arrays in the result share its memory.

    Raises:
      UserError: the bytes are not an ONNX model, are cut short, or hold a tensor whose data are
        external, of another type, or of another size than its shape.
    """
    graphs = [value for field, value in _fields(memoryview(data), {7: _BYTES})]
    if len(graphs) != 1:
        raise _broken(f"it holds {len(graphs)} graphs instead of one")
    nodes: list[Node] = []
    initializers: dict[str, np.ndarray] = {}
    for field, value in _fields(graphs[0], {1: _BYTES, 5: _BYTES}):
        if field == 1:
            nodes.append(_node(value))
        else:
            name, tensor = _tensor(value)
            if name in initializers:
                raise _broken(f"it holds initializer {name!r} twice")
            initializers[name] = tensor
    return Graph(nodes=tuple(nodes), initializers=initializers)


def _node(message: memoryview) -> Node:
    text: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: []}
    for field, value in _fields(message, dict.fromkeys(text, _BYTES)):
        text[field].append(_text(value))
    return Node(
        name="".join(text[3][-1:]),
        op_type="".join(text[4][-1:]),
        inputs=tuple(text[1]),
        outputs=tuple(text[2]),
    )


def _tensor(message: memoryview) -> tuple[str, np.ndarray]:
    """Reads a TensorProto: dims 1, data_type 2, name 8, raw_data 9, data_location 14."""
    dims: list[int] = []
    data_type, name, raw, external = 0, "", None, 0
    wanted = {1: None, 2: _VARINT, 8: _BYTES, 9: _BYTES, 14: _VARINT}
    for field, value in _fields(message, wanted):
        if field == 1:  # one varint each, or all packed in one run of bytes
            dims += [value] if isinstance(value, int) else list(_varints(value))
        elif field == 2:
            data_type = value
        elif field == 8:
            name = _text(value)
        elif field == 9:
            raw = value
        else:
            external = value
    if raw is None or external or data_type not in _DTYPES:
        raise _broken(
            f"initializer {name!r} (type {data_type}) does not hold its data as raw bytes"
        )
    if len(dims) > _MAX_RANK or any(size >= 1 << 31 for size in dims):
        raise _broken(f"initializer {name!r} has shape {dims}")
    dtype = np.dtype(_DTYPES[data_type])
    if math.prod(dims) * dtype.itemsize != len(raw):
        raise _broken(f"initializer {name!r} of shape {dims} holds {len(raw)} bytes")
    return name, np.frombuffer(raw, dtype=dtype).reshape(dims)


def _fields(
    message: memoryview, wanted: dict[int, int | None]
) -> Iterator[tuple[int, int | memoryview]]:
    """Yields (field number, value) of the wanted fields of a message; steps over the others.

    `wanted` maps a field number to the wire type it must have, None for varint or bytes.
    """
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        field, wire = key >> 3, key & 7
        value: int | memoryview
        if wire == _VARINT:
            value, at = _varint(message, at)
        elif wire in (_FIXED64, _BYTES, _FIXED32):
            if wire == _BYTES:
                size, at = _varint(message, at)
            else:
                size = 8 if wire == _FIXED64 else 4
            if size > end - at:
                raise _broken(f"a field of {size} bytes starts {end - at} bytes before its end")
            value = message[at : at + size]
            at += size
        else:
            raise _broken(f"it uses wire type {wire}")
        if field == 0:
            raise _broken("it has a field with number 0")
        if field in wanted:
            if wire != wanted[field] and (
                wanted[field] is not None or wire not in (_VARINT, _BYTES)
            ):
                raise _broken(f"field {field} has wire type {wire}")
            yield field, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):  # at most ten bytes make 64 bits
        if at >= len(message):
            raise _broken("it ends within a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise _broken("a number is longer than ten bytes")


def _varints(run: memoryview) -> Iterator[int]:
    at = 0
    while at < len(run):
        value, at = _varint(run, at)
        yield value


def _text(value: memoryview) -> str:
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise _broken("a name is not UTF-8") from None


def _broken(what: str) -> UserError:
    return UserError(f"The ONNX file cannot be read: {what}; fetch it again")
