"""Where parameters lie by name."""

import re

import pytest

from ape_jax import config as config_lib
from ape_jax.config import placement
from ape_jax.errors import UserError

SHAPES = {"text_tower/blocks/mlp/fc1/kernel": (12, 32, 128), "text_head/bias": (6,)}
MESH = {"data": 2, "fsdp": 4}


def test_the_first_rule_that_matches_the_whole_name_decides():
    rules = ((".*/fc1/kernel", "-1:fsdp"), ("text_tower/.*", "replicated"))
    assert placement.find(rules, "text_tower/blocks/mlp/fc1/kernel") == "-1:fsdp"
    assert placement.find(rules, "text_tower/embed/token") == "replicated"
    assert placement.find(rules, "image_tower/embed/kernel") is None
    assert placement.find((("kernel", "replicated"),), "text_tower/kernel") is None


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("replicated", (None, None, None)),
        ("-1:fsdp", (None, None, ("fsdp",))),
        ("0:data,2:fsdp", (("data",), None, ("fsdp",))),
        ("1:data+fsdp", (None, ("data", "fsdp"), None)),
    ],
)
def test_dimensions_go_over_axes(where, expected):
    assert placement.split(where, 3) == expected


@pytest.mark.parametrize(
    ("pattern", "where", "message"),
    [
        ("image.*", "-1:fsdp", "'image.*' matches no parameter; write one that does"),
        ("text_head/bias", "1:data", "splits dimension 1 of text_head/bias, which has the shape"),
        ("text_head/bias", "0:fsdp", "whose 6 entries do not divide over 4 devices"),
        (".*kernel", "2:data,-1:fsdp", "splits one dimension of text_tower/blocks"),
    ],
)
def test_rules_that_do_not_fit_are_refused(pattern, where, message):
    with pytest.raises(UserError, match=r"config\.mesh\.rules: .*" + re.escape(message)):
        placement.check(((pattern, where),), SHAPES, MESH)


def test_an_axis_that_the_mesh_does_not_have_is_refused():
    with pytest.raises(UserError, match=r"over 'fsdp', which this mesh does not have; write"):
        placement.check(((".*kernel", "-1:fsdp"),), SHAPES, {"data": 8})


@pytest.mark.parametrize(
    "value",
    [
        "(('(', 'replicated'),)",
        "(('.*', '0:model'),)",
        "(('.*', 'whole'),)",
        "(('.*', '0:data,1:data'),)",
        "('.*', 'replicated')",
    ],
)
def test_what_is_no_rule_is_refused_by_key(tiny_config, value):
    with pytest.raises(UserError, match=r"config\.mesh\.rules: expected pairs \(regular"):
        config_lib.override(tiny_config, {"mesh.rules": value})
        config_lib.resolve(tiny_config)
