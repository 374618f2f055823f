"""`features:WIDTH`: a tower that is not there."""

import numpy as np
import pytest

from ape_jax import towers
from ape_jax.errors import UserError


def test_it_has_a_width_and_no_parameters():
    tower = towers.load("features:384", kind="image")
    assert tower.config.pooled_width() == 384
    assert tower.params == {}


@pytest.mark.parametrize("spec", ["features:", "features:0", "features:x", "features:99999999"])
def test_a_width_is_needed(spec):
    with pytest.raises(UserError, match="features:WIDTH"):
        towers.load(spec, kind="text")


def test_it_encodes_nothing():
    tower = towers.load("features:4", kind="image")
    with pytest.raises(UserError, match="is no tower"):
        tower({"image": np.zeros((1, 8, 8, 3), np.float32)})


def test_prepare_takes_vectors_of_its_width():
    prepare = towers.load("features:2", kind="text").prepare
    one, several = prepare([[1, 2], np.ones((3, 2))])
    assert one.shape == (1, 2) and several.shape == (3, 2) and one.dtype == np.float32


@pytest.mark.parametrize("vector", ["a cat", [1.0], [[1, 2]], np.zeros((0, 2)), [np.nan, 1], None])
def test_prepare_refuses_anything_else(vector):
    prepare = towers.load("features:2", kind="image").prepare
    if np.shape(vector) == (1, 2):
        vector = [[1, 2], [3, 4]]  # Two rows are no image.
    with pytest.raises(UserError, match="vector"):
        prepare([vector])
