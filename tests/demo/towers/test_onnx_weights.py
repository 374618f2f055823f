"""The ONNX reader against the onnx package, and against broken bytes."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from ape_jax.demo.towers import onnx_weights
from ape_jax.errors import UserError


def model(*initializers, nodes=()):
    graph = helper.make_graph(list(nodes), "g", [], [], initializer=list(initializers))
    return helper.make_model(graph, producer_name="test").SerializeToString()


RNG = np.random.default_rng(0)
ARRAYS = {
    "matrix": RNG.normal(size=(3, 5)).astype(np.float32),
    "half": RNG.normal(size=(2, 2, 2)).astype(np.float16),
    "double": RNG.normal(size=(7,)),
    "long": np.array([-1, 2**40], np.int64),
    "scalar": np.float32(3.5).reshape(()),
    "empty": np.zeros((0, 4), np.float32),
    "ünïcode": np.arange(3, dtype=np.int32),
}
SMALL = model(
    *(numpy_helper.from_array(array, name) for name, array in ARRAYS.items()),
    nodes=[
        helper.make_node("MatMul", ["x", "matrix"], ["y"], name="/layer/MatMul"),
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(ARRAYS["double"])),
        helper.make_node("Relu", ["y"], ["z"]),
    ],
)


def test_equals_the_onnx_package():
    graph = onnx_weights.read_graph(SMALL)
    reference = onnx.load_from_string(SMALL).graph
    assert list(graph.initializers) == [tensor.name for tensor in reference.initializer]
    for tensor in reference.initializer:
        expected = numpy_helper.to_array(tensor)
        assert graph.initializers[tensor.name].dtype == expected.dtype
        np.testing.assert_array_equal(graph.initializers[tensor.name], expected)
    assert [(n.name, n.op_type, n.inputs, n.outputs) for n in graph.nodes] == [
        (n.name, n.op_type, tuple(n.input), tuple(n.output)) for n in reference.node
    ]


@pytest.mark.parametrize(
    "tensor",
    [
        helper.make_tensor("t", onnx.TensorProto.FLOAT, [2], [1.0, 2.0]),  # float_data
        onnx.TensorProto(name="t", data_type=1, dims=[3], raw_data=b"\0" * 8),
        helper.make_tensor("t", onnx.TensorProto.BFLOAT16, [1], b"\0\0", raw=True),
        onnx.TensorProto(name="t", data_type=1, dims=[1 << 40, 1 << 40], raw_data=b"\0" * 4),
        onnx.TensorProto(name="t", data_type=1, dims=[-1], raw_data=b"\0" * 4),
    ],
    ids=["not raw", "wrong size", "unread type", "huge", "negative"],
)
def test_unreadable_tensors_are_user_errors(tensor):
    with pytest.raises(UserError, match="'t'"):
        onnx_weights.read_graph(model(tensor))


def test_external_data_are_refused():
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), "t")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    with pytest.raises(UserError, match="raw bytes"):
        onnx_weights.read_graph(model(tensor))


def test_two_initializers_of_one_name_are_refused():
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), "t")
    with pytest.raises(UserError, match="twice"):
        onnx_weights.read_graph(model(tensor, tensor))


def read(data):
    """Reads; the only exception allowed is the user's."""
    try:
        onnx_weights.read_graph(data)
    except UserError:
        pass


def test_every_truncation_is_handled():
    for end in range(len(SMALL)):
        read(SMALL[:end])


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, len(SMALL) - 1), byte=st.integers(0, 255))
def test_every_changed_byte_is_handled(position, byte):
    read(SMALL[:position] + bytes([byte]) + SMALL[position + 1 :])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64))
def test_noise_is_handled(data):
    read(data)
