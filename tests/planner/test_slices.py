"""Names of slices."""

import pytest

from ape_jax.errors import UserError
from ape_jax.planner import slices


def test_a_slice_by_name():
    found = slices.parse("v4:4x8x8")
    assert (found.kind, found.shape, found.chips, found.devices) == ("v4", (4, 8, 8), 256, 256)
    assert slices.parse("tpu7x:2x2x1").devices == 8


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", r"--topology: expected KIND:SHAPE such as v5e:4x4"),
        ("h100:8", r"expected KIND:SHAPE .* of v4, v5e"),
        ("v5e:2x2x2", r"a v5e slice has 2 dimensions, as in v5e:2x2"),
        ("v5e:0x4", r"a v5e slice has 2 dimensions"),
    ],
)
def test_other_names_are_refused(name, message):
    with pytest.raises(UserError, match=message):
        slices.parse(name)
