"""Extraction by actors: the bytes of one process, and what is said where that cannot be."""

import functools
import shutil

import pytest

from ape_jax import config as config_lib
from ape_jax.errors import UserError
from ape_jax.features import jobs
from ape_jax.features.cache import Cache
from ape_jax.features.engines import ray as engine
from ape_jax.features.fingerprint import Fingerprint
from ape_jax.parallel.actors import Pool, RayCluster
from ape_jax.training import extraction, run

pytest.importorskip("ray", reason="ray is not installed (ape_jax[ray])")
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def config(tiny, tiny_config, tmp_path, monkeypatch):
    """Two views of each image, in six shards and six more; the last image but one is broken."""
    monkeypatch.setattr(jobs, "SHARD_VIEWS", 8)
    monkeypatch.setattr(jobs, "SHARD_CAPTIONS", 8)
    # As an undisturbed process with one device.
    one = functools.partial(run.mesh_lib.make_mesh, 1)
    monkeypatch.setattr(run.mesh_lib, "make_mesh", lambda fsdp=1: one(fsdp=fsdp))
    shutil.copytree(tiny, tmp_path / "pairs", ignore=shutil.ignore_patterns("image", "text"))
    (tmp_path / "pairs/purple-triangle.png").write_bytes(b"no image")
    tiny_config.data.pairs, tiny_config.data.eval = str(tmp_path / "pairs/pairs.jsonl"), {}
    tiny_config.data.on_error = "skip"
    tiny_config.cache.views, tiny_config.augment.flip = 2, True
    return tiny_config


def extracted(config, root, **options):
    """The summary, and the files of the caches below `root`."""
    config.cache.dir = str(root / "features")
    summary = extraction.extract(config_lib.resolve(config), root / "run", **options)
    folder = root / "features"
    files = (path for path in folder.rglob("*") if path.is_file())
    return summary["caches"], {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_an_actor_writes_the_bytes_of_one_process_and_says_the_same(
    config, ray_here, tmp_path, capfd
):
    _, expected = extracted(config, tmp_path / "process")
    said = capfd.readouterr().err
    caches, files = extracted(config, tmp_path / "ray", cluster=RayCluster(actors=1))
    assert [(c["what"], c["encoded"], c["left_out"]) for c in caches] == [
        ("training images", 46, 1),
        ("training captions", 46, 0),
    ]
    assert files == expected and len(files) == 2 * (6 + 3)
    lines = [line for line in capfd.readouterr().err.splitlines() if "left out" in line]
    assert lines == [line for line in said.splitlines() if "left out" in line] != []
    assert "purple-triangle.png" in lines[0]


def test_an_image_that_cannot_be_read_ends_it_with_its_sentence(config, ray_here, tmp_path):
    config.data.on_error = "error"
    with pytest.raises(UserError, match=r"purple-triangle\.png") as error:
        extracted(config, tmp_path, cluster=RayCluster(actors=1))
    assert "\n" not in str(error.value)
    # Other shards may be finished; the broken one is not.
    assert not list((tmp_path / "features").glob("*/shards.json"))


class Elsewhere(Pool):
    """Actors whose directory is another."""

    def __init__(self):
        pass

    def run(self, method, tasks, take, report, ahead=0):
        for number, _ in enumerate(tasks):
            take(number, {})


def test_a_directory_that_machines_do_not_share_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "_PATIENCE", 0.1)
    parts = {"kind": "images", "tower": "toy", "pairs": "p.jsonl", "parts": {}}
    sizes = {"what": "images", "unit": "views", "count": 10, "per_item": 1, "per_shard": 4}
    job = engine.RemoteJob(number=0, pool=Elsewhere(), fingerprint=Fingerprint(**parts), **sizes)
    cache = Cache(tmp_path, job.fingerprint, job.count, job.per_shard)
    with pytest.raises(UserError, match=r"shard 1 was written by an actor and is not in .* share"):
        engine.OnRay(job.pool).write(job, cache, [1, 2], print)
