"""Where features live: on the devices where they fit, or as the config says."""

import dataclasses

import numpy as np
import pytest

from ape_jax.data.pairs import Pair
from ape_jax.errors import UserError
from ape_jax.features.dataset import Captions, Dataset
from ape_jax.features.ragged import RaggedTokens
from ape_jax.images.decode import ImageRef
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.training.input import residency


def make_dataset(n=50, width=16):
    each = np.arange(n + 1)
    captions = Captions(tuple(map(str, range(n))), each[:-1], each)
    tokens = RaggedTokens(np.zeros((n, width), np.float32), each)
    pairs = [Pair(ImageRef("", ""), (), str(i)) for i in range(n)]
    return Dataset(pairs, captions, np.zeros((n, 3, width), np.float32), tokens)


def test_device_that_does_not_fit_names_the_sizes(monkeypatch):
    mesh, dataset = mesh_lib.make_mesh(8), make_dataset()
    monkeypatch.setattr(residency, "free_bytes", lambda mesh: residency.feature_bytes(dataset))
    with pytest.raises(UserError, match=r"cache.place: 'device' does not fit .* MiB .* 'host'"):
        residency.on_device(dataset, "device", mesh)
    assert not residency.on_device(dataset, "auto", mesh)
    monkeypatch.setattr(residency, "free_bytes", lambda mesh: 10 * residency.feature_bytes(dataset))
    assert residency.on_device(dataset, "device", mesh)
    assert residency.on_device(dataset, "auto", mesh)
    assert not residency.on_device(dataset, "host", mesh)


def test_device_is_refused_where_nothing_is_encoded():
    dataset = dataclasses.replace(make_dataset(), pooled=None)
    with pytest.raises(UserError, match=r"cache\.place: 'device' keeps encoded features"):
        residency.on_device(dataset, "device", mesh_lib.make_mesh())


def test_free_memory_of_this_machine_is_known_and_shared_by_its_devices():
    one, eight = (residency.free_bytes(mesh_lib.make_mesh(count)) for count in (1, 8))
    assert 2**26 < eight < one
