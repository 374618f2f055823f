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
from ape_jax.storage.rows.mapped import MappedRows, Part
from ape_jax.training.input import residency


def make_dataset(n=50, width=16):
    each = np.arange(n + 1)
    captions = Captions(tuple(map(str, range(n))), each[:-1], each)
    tokens = RaggedTokens(np.zeros((n, width), np.float32), each)
    pairs = [Pair(ImageRef("", ""), (), str(i)) for i in range(n)]
    return Dataset(pairs, captions, np.zeros((n, 3, width), np.float32), tokens)


def test_device_that_does_not_fit_names_the_sizes(monkeypatch):
    mesh, dataset = mesh_lib.make_mesh(8), make_dataset()
    monkeypatch.setattr(
        residency.device_memory, "free_bytes", lambda mesh: residency.feature_bytes(dataset)
    )
    with pytest.raises(UserError, match=r"cache.place: 'device' does not fit .* MiB .* 'host'"):
        residency.choose(dataset, "device", mesh)
    assert residency.choose(dataset, "auto", mesh) == "host"
    monkeypatch.setattr(
        residency.device_memory, "free_bytes", lambda mesh: 10 * residency.feature_bytes(dataset)
    )
    assert residency.choose(dataset, "device", mesh) == "device"
    assert residency.choose(dataset, "auto", mesh) == "device"
    assert residency.choose(dataset, "host", mesh) == "host"
    assert residency.choose(dataset, "disk", mesh) == "disk"


def test_device_is_refused_where_nothing_is_encoded():
    dataset = dataclasses.replace(make_dataset(), pooled=None)
    with pytest.raises(UserError, match=r"cache\.place: 'device' keeps encoded features"):
        residency.choose(dataset, "device", mesh_lib.make_mesh())


def test_free_memory_of_this_machine_is_known_and_shared_by_its_devices():
    one, eight = (residency.device_memory.free_bytes(mesh_lib.make_mesh(count)) for count in (1, 8))
    assert 2**26 < eight < one


def test_what_is_on_disk_stays_there_where_memory_would_be_short(tmp_path, monkeypatch, capsys):
    (tmp_path / "a").write_bytes(bytes(50 * 3 * 16 * 4))
    pooled = MappedRows([Part(tmp_path / "a", 50)], (3, 16), np.dtype(np.float32))
    dataset, mesh = dataclasses.replace(make_dataset(), pooled=pooled), mesh_lib.make_mesh()
    assert dataset.bytes_on_disk == pooled.nbytes
    for free, where in ((3 * pooled.nbytes, "host"), (pooled.nbytes, "disk"), (None, "disk")):
        monkeypatch.setattr(residency.memory, "free_bytes", lambda free=free: free)
        assert residency.choose(dataset, "auto", mesh) == where
        assert f"features live on the {where} (0 MiB of features" in capsys.readouterr().err
        # Hidden states are never put on devices.
        assert residency.choose(dataset, "auto", mesh, streams=True) == where
    assert isinstance(dataset.in_memory().pooled, np.ndarray)
    assert dataset.in_memory().bytes_on_disk == 0
