"""Where arrays lie on eight devices."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from ape_jax.parallel import mesh as mesh_lib


@pytest.fixture(scope="module")
def mesh():
    return mesh_lib.make_mesh()


def test_mesh_has_auto_axes_over_all_devices(mesh):
    assert mesh.devices.size == 8
    assert set(mesh.axis_types) == {AxisType.Auto}


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((12, 384, 1536), P(None, None, "data")),
        ((16, 8, 8), P("data", None, None)),
        ((12, 64, 64), P(None, None, "data")),
        ((250, 37), P()),
        ((8,), P()),
    ],
)
def test_large_arrays_are_split_along_their_longest_divisible_axis(mesh, shape, spec):
    assert mesh_lib.by_size(mesh, shape, min_size=1000).spec == spec


def test_frozen_parameters_take_an_eighth_of_the_memory_a_device(mesh):
    tree = mesh_lib.place_frozen({"kernel": np.ones((64, 64)), "bias": np.ones(64)}, mesh, 1000)
    shards = tree["kernel"].addressable_shards
    assert {s.data.size for s in shards} == {64 * 64 // 8}
    assert tree["bias"].sharding.is_fully_replicated


def test_short_batch_is_filled_with_its_last_row(mesh):
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    placed = mesh_lib.place_whole_batch({"x": x}, mesh, 8)["x"]
    np.testing.assert_array_equal(placed[:3], x)
    np.testing.assert_array_equal(placed[3:], np.repeat(x[-1:], 5, axis=0))
    assert placed.sharding == mesh_lib.over_batch(mesh)


def test_one_device_mesh_takes_the_first():
    mesh = mesh_lib.make_mesh(1)
    assert list(mesh.devices.ravel()) == jax.devices()[:1]
    assert mesh_lib.round_up(5, mesh) == 5
