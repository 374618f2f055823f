"""A trained tiny run, for all tests of outside judges."""

import pytest

import ape_jax
from ape_jax import config as config_lib
from ape_jax.training import loop


@pytest.fixture(scope="session")
def run(tiny, tmp_path_factory):
    """The work directory."""
    config = config_lib.default()
    config.image.tower, config.text.tower = str(tiny / "image"), str(tiny / "text")
    config.image.dtype = config.text.dtype = "float32"
    config.data.pairs = str(tiny / "pairs.jsonl")
    config.text.head.depth, config.optim.lr = 2, 3e-3
    config.train.batch, config.train.steps, config.eval.batch = 16, 40, 8
    config.cache.dir = str(tmp_path_factory.mktemp("features"))
    path = tmp_path_factory.mktemp("run")
    loop.train_and_evaluate(config_lib.resolve(config), path)
    return path


@pytest.fixture(scope="session")
def aligner(run):
    return ape_jax.load(run)
