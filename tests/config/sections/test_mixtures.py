"""Several sources of pairs in one value."""

import pytest

from ape_jax import config as config_lib
from ape_jax.config.sections import mixtures
from ape_jax.errors import UserError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a.jsonl", "a.jsonl"),
        (["a.jsonl", "b.tar"], "a.jsonl::b.tar"),
        (("a.jsonl",), "a.jsonl"),
        ({"a.jsonl": 2, "b.tar": 0.5}, "a.jsonl::b.tar::weights=2,0.5"),
        ("a::b::weights=1,2", "a::b::weights=1,2"),
    ],
)
def test_what_a_config_file_may_write_is_kept_as_text(value, text):
    config = config_lib.default()
    config.image.tower = config.text.tower = "demo:x"
    config.data.pairs = value
    assert config_lib.resolve(config).data.pairs == text


@pytest.mark.parametrize("value", [7, ["a", 3], [], {"a": "b"}, {"a": True}, ["a::b"]])
def test_other_values_are_refused_by_name(value):
    config = config_lib.default()
    config.image.tower = config.text.tower = "demo:x"
    config.data.pairs = value
    with pytest.raises(UserError, match=r"config\.data\.pairs: expected "):
        config_lib.resolve(config)


def test_a_list_of_specs_may_be_an_evaluation():
    config = config_lib.default()
    config.image.tower = config.text.tower = "demo:x"
    config.data.pairs = "a.jsonl"
    flat = {**config_lib.flatten(config), "data.eval": {"both": ["a.jsonl", "b.tar"]}}
    assert config_lib.resolve(flat).data.eval == {"both": "a.jsonl::b.tar"}


def test_sources_and_weights():
    assert mixtures.parse("a.tar", "k") == mixtures.Mixture(("a.tar",))
    assert mixtures.parse("a::b", "k") == mixtures.Mixture(("a", "b"))
    found = mixtures.parse("a::b::weights=2,1.5", "k")
    assert found == mixtures.Mixture(("a", "b"), (2.0, 1.5)) and str(found) == "a::b::weights=2,1.5"


@pytest.mark.parametrize(
    "spec",
    ["a::", "::a", "a::::b", "a::b::weights=1", "a::b::weights=1,0", "a::b::weights=1,x",
     "a::b::weights=1,-2", "a::b::weights=nan,1", "a::weights=1,2"],
)  # fmt: skip
def test_a_mixture_that_is_none_names_the_key(spec):
    with pytest.raises(UserError, match=r"data\.pairs: "):
        mixtures.parse(spec, "data.pairs")
