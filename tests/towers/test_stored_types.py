"""Files as people store them: in half precision and in shards, for every family."""

import jax
import numpy as np
import pytest
import torch

from ape_jax import towers
from ape_jax.towers.family import FAMILIES
from tests.benchmarks import parity

TYPES = {
    model_type: family.kind
    for family in FAMILIES.values()
    for model_type, section in family.model_types.items()
    if section is None
}
"""Every `model_type` of a tower of its own."""


def read(folder, kind):
    return towers.read(folder, kind=kind, dtype="float32")[1]


def assert_same_trees(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.fixture(params=TYPES)
def small(request, tmp_path):
    """A small random model of transformers, what saves it, and its kind."""
    kind = TYPES[request.param]
    model = parity.made(request.param, kind)

    def save(name, **options):
        folder = tmp_path / name
        model.save_pretrained(folder, **options)
        if kind == "text":
            parity.write_tokenizer(folder)
        return folder

    return model, save, kind


def assert_read_as_widened(small, dtype):
    model, save, kind = small
    model.to(dtype)
    narrow = read(save("narrow"), kind)
    model.to(torch.float32)
    assert_same_trees(narrow, read(save("widened"), kind))


def test_shards_and_bfloat16_give_the_parameters_of_one_wide_file(small):
    _, save, kind = small
    want = read(save("whole"), kind)
    sharded = save("shards", max_shard_size="30KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    assert_same_trees(read(sharded, kind), want)
    assert_read_as_widened(small, torch.bfloat16)


@pytest.mark.slow
def test_float16_gives_the_parameters_of_a_wide_file(small):
    assert_read_as_widened(small, torch.float16)
