"""What every family declares, beside what its own tests compare."""

import pathlib

import pytest

from ape_jax.errors import UserError
from ape_jax.towers import family
from ape_jax.towers.family import FAMILIES, TorchClass

README = (pathlib.Path(__file__).parents[2] / "README.md").read_text()


def test_the_readme_counts_the_model_types_of_the_table():
    types = {name for family in FAMILIES.values() for name in family.model_types}
    assert f"[{len(types)} model types](docs/reference/towers.md)" in README


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_an_example(name):
    assert FAMILIES[name].models


@pytest.mark.parametrize("name", FAMILIES)
def test_an_exported_family_names_its_class_and_how_that_pools(name):
    torch = FAMILIES[name].torch
    if isinstance(torch, str):
        assert torch and not torch.endswith(".")
        return
    assert isinstance(torch, TorchClass)
    # A class that pools by a dense layer needs no bias to move a constant to, and others do.
    assert torch.pooler is None or torch.pooler.dense is not bool(torch.pooler.last_bias)


def test_no_two_families_of_a_kind_read_the_same_model_type():
    found = [(f.kind, model_type) for f in FAMILIES.values() for model_type in f.model_types]
    assert len(found) == len(set(found))


def test_a_model_type_that_no_family_reads_is_an_error_that_lists_those_that_are():
    with pytest.raises(
        UserError, match=r"model_type is 'gpt9', .*, vit.*; text towers have .*bert, "
    ):
        family.find({"model_type": "gpt9"}, "config.json", None)
