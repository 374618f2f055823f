"""Equal rows are one group."""

import numpy as np
import pytest

from ape_jax.data.table.joining.groups import groups


@pytest.mark.parametrize("seed", range(3))
def test_groups_are_those_of_a_dictionary(seed):
    keys = np.random.default_rng(seed).integers(0, 4, (50, 2)).astype(np.uint64)
    place: dict[tuple, int] = {}
    group = [place.setdefault(tuple(key), len(place)) for key in keys.tolist()]
    found = groups(keys)
    assert found.group.tolist() == group
    assert found.first.tolist() == [group.index(g) for g in range(len(place))]
