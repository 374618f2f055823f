"""The names of tuning modes."""

import pytest

from ape_jax.config import tune


@pytest.mark.parametrize(
    ("text", "frontier"),
    [
        ("frozen", "output"),
        ("append", "hidden"),
        ("top:3", "hidden"),
        ("layernorm", "input"),
        ("append+layernorm", "input"),
        ("lora", "input"),
        ("full", "input"),
    ],
)
def test_the_frontier_lies_under_the_lowest_trained_parameter(text, frontier):
    assert tune.parse(text).frontier == frontier


def test_parts_are_a_set():
    assert tune.parse("adapter+bitfit") == tune.parse("bitfit+adapter")


@pytest.mark.parametrize(
    "text", ["", "top", "top:0", "top:-1", "full+lora", "frozen+lora", "lora+lora", "lora+", "LoRA"]
)
def test_other_texts_name_no_mode(text):
    assert not tune.is_tune(text)
    with pytest.raises(ValueError, match="expected 'frozen'"):
        tune.parse(text)
