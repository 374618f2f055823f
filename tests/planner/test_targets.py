"""Names of devices, and what is told of GPUs."""

import pytest

from ape_jax.errors import UserError
from ape_jax.planner import gpus, slices, targets


def test_gpus_by_name():
    one, many = targets.parse("h100:8"), targets.parse("h100:4x8")
    assert (one.chips, one.devices, one.platform) == (8, 8, "cuda")
    assert many.chips == 32
    assert many.chip.link_rate < one.chip.link_rate == gpus.GPUS["h100"].link_rate


def test_slices_by_name():
    assert targets.parse("v5e:4x4", thorough=True) == slices.parse("v5e:4x4", thorough=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", r"--topology: expected TPUs such as v5e:4x4, of v4.* or GPUs such as h100:8, of a100"),
        ("x1:8", r"found 'x1:8'"),
        ("h100", r"expected GPU:NUMBER or GPU:MACHINESxNUMBER such as h100:4x8.*found 'h100'"),
        ("h100:0", r"found 'h100:0'"),
        ("h100:2x2x2", r"found 'h100:2x2x2'"),
    ],
)
def test_other_names_are_refused(name, message):
    with pytest.raises(UserError, match=message):
        targets.parse(name)


def test_a_gpu_has_three_quarters_of_its_memory_to_give():
    where = targets.parse("a100:1")
    assert where.refusal(60 * 2**30) == ""
    assert where.refusal(60 * 2**30 + 1) == ("it needs 60.0 GiB a device, and of 80 JAX takes 60")


def test_an_exact_product_is_six_on_a_tpu_and_that_of_ordinary_units_on_a_gpu():
    assert slices.parse("v5e:1x1").chip.exact == 6
    assert gpus.GPUS["a100"].exact == 16
