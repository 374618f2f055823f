"""4-bit blocks against a plain decoder, the file's layout, and broken files."""

import struct

import numpy as np
import pytest

from ape_jax.demo.towers import q4_weights
from ape_jax.errors import UserError

RNG = np.random.default_rng(0)


def plain_decode(data):
    """One weight at a time, as e5.c does it."""
    out = []
    for start in range(0, len(data), 18):
        scale = np.frombuffer(data[start : start + 2], np.float16)[0]
        packed = data[start + 2 : start + 18]
        out += [np.float32(scale) * np.float32((byte & 15) - 8) for byte in packed]
        out += [np.float32(scale) * np.float32((byte >> 4) - 8) for byte in packed]
    return np.array(out, np.float32)


def blocks(count):
    scales = RNG.normal(size=count).astype("<f2")
    return b"".join(scale.tobytes() + RNG.bytes(16) for scale in scales)


def model_file(tensors):
    """Writes a file: name -> (dtype, count, bytes)."""
    head = b"E5S1" + struct.pack("<I7ifi", 1, 64, 2, 4, 128, 99, 16, 2, 1e-12, 32)
    pieces = [b"a", b"bc"]
    head += struct.pack("<5iQ", 2, 0, 2, 1, 3, 3) + struct.pack("<3I2f", 0, 1, 3, -1.0, -2.0)
    head += b"".join(pieces) + struct.pack("<iI", 1, 9) + bytes(9)
    size = len(head) + 4 + sum(2 + len(name) + 21 for name in tensors)
    directory, body = struct.pack("<i", len(tensors)), b""
    for name, (dtype, count, data) in tensors.items():
        directory += struct.pack("<H", len(name)) + name.encode()
        directory += struct.pack("<BIQQ", dtype, count, size + len(body), len(data))
        body += data
    return head + directory + body


def test_decode_equals_a_plain_decoder():
    data = blocks(50)
    np.testing.assert_array_equal(
        q4_weights.decode(np.frombuffer(data, np.uint8)), plain_decode(data)
    )


def test_file_is_read():
    packed, plain = blocks(4), RNG.normal(size=5).astype("<f4")
    data = model_file({"l0.q.w": (1, 128, packed), "l0.q.b": (0, 5, plain.tobytes())})
    header, tensors = q4_weights.read_model(data)
    assert (header.width, header.depth, header.heads, header.mlp_width) == (64, 2, 4, 128)
    assert (header.vocab_size, header.max_positions, header.type_vocab_size) == (99, 16, 2)
    np.testing.assert_array_equal(tensors["l0.q.w"], plain_decode(packed))
    np.testing.assert_array_equal(tensors["l0.q.b"], plain)


def test_broken_files_are_user_errors():
    data = model_file({"a": (1, 64, blocks(2)), "b": (0, 1, bytes(4))})
    for end in range(len(data)):
        with pytest.raises(UserError):
            q4_weights.read_model(data[:end])
    with pytest.raises(UserError, match="type 2"):
        q4_weights.read_model(model_file({"a": (2, 32, bytes(18))}))
    with pytest.raises(UserError, match="33 values"):
        q4_weights.read_model(model_file({"a": (1, 33, blocks(2))}))
    with pytest.raises(UserError, match="E5S1"):
        q4_weights.read_model(b"nope" + data[4:])
