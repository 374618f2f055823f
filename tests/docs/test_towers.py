"""The table of towers: every family is in it, with a parity that was measured."""

import json
import pathlib
import sys

import pytest

from ape_jax.towers.family import FAMILIES

ROOT = pathlib.Path(__file__).parents[2]
KEPT = json.loads((ROOT / "docs/results/parity.json").read_text())
sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))


def test_every_type_of_one_tower_has_a_parity_within_rounding():
    from parity import ELSEWHERE, types

    measured = {name for name, _ in types()}
    assert measured == KEPT.keys()
    assert not measured & ELSEWHERE.keys()
    assert all(0 <= value <= 2e-5 for value in KEPT.values())


@pytest.mark.parametrize("kind", ["image", "text"])
def test_the_table_has_a_row_for_every_family(kind):
    sys.path.insert(0, str(ROOT / "docs"))
    import hooks

    table = hooks._towers(kind)
    rows = table.splitlines()[2:]
    assert len(rows) == sum(family.kind == kind for family in FAMILIES.values())
    for family in FAMILIES.values():
        assert family.kind != kind or all(f"`{name}`" in table for name in family.model_types)
