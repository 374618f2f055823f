"""Frequencies of rotary positions against transformers' formulas."""

import numpy as np
import pytest
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ape_jax.errors import UserError
from ape_jax.towers.family import Fields
from ape_jax.towers.text import rope

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


@pytest.mark.parametrize(
    "parameters",
    [
        {"rope_type": "linear", "factor": 3.0},
        {"rope_type": "dynamic", "factor": 3.0},
        {**LLAMA3, "rope_theta": 5e5},
        {**LLAMA3, "low_freq_factor": 0.5, "high_freq_factor": 8.0, "factor": 8.0},
        {**YARN, "rope_theta": 1e6},
        {**YARN, "truncate": False, "beta_fast": 16, "beta_slow": 2},
        {**YARN, "mscale": 0.7, "mscale_all_dim": 1.3},
        {**YARN, "attention_factor": 1.25, "original_max_position_embeddings": 64},
        {"rope_type": "yarn", "factor": 0.5},
        {"type": "yarn", "factor": None, "original_max_position_embeddings": 1024},
    ],
)
@pytest.mark.parametrize("width", [6, 64, 128])
def test_frequencies_equal_transformers(parameters, width):
    positions = {"max_position_embeddings": 40960}
    config = transformers.LlamaConfig(head_dim=width, rope_parameters=dict(parameters), **positions)
    kind = config.rope_parameters["rope_type"]
    want, strength = ROPE_INIT_FUNCTIONS[kind](config)
    fields = Fields({"rope_scaling": parameters, **positions}, "config.json")
    found = rope.read(fields, positions=40960)
    np.testing.assert_allclose(found.frequencies(width), want.numpy(), rtol=3e-6)
    assert found.strength == pytest.approx(strength)
    again = Fields({"rope_parameters": found.describe()}, "config.json")
    assert rope.read(again, positions=40960) == found


def test_the_base_may_stand_above_or_in_the_object():
    def theta(values):
        return rope.read(Fields(values, "config.json"), positions=64).theta

    assert theta({}) == 10000
    assert theta({"rope_theta": 5.0, "rope_scaling": None}) == 5
    assert theta({"rope_theta": 5.0, "rope_parameters": {"rope_theta": 7.0}}) == 7
    scaled = {"type": "linear", "factor": 2.0}
    found = rope.read(Fields({"rope_theta": 5.0, "rope_scaling": scaled}, ""), positions=64)
    assert (found.theta, found.kind, found.settings) == (5, "linear", (("factor", 2.0),))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rope_scaling": {"rope_type": "longrope"}}, "'longrope'.*torch:hf:"),
        ({"rope_scaling": {"type": ["linear"]}}, "rope_type"),
        ({"rope_scaling": ["linear"]}, "'rope_scaling' is .*; write an object"),
        ({"rope_parameters": {"rope_type": "linear"}}, "'factor' is missing"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 0}}, "factor is 0"),
        ({"rope_parameters": {**LLAMA3, "high_freq_factor": 1.0}}, "high_freq_factor"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"rope_theta": 0.0}, "rope_theta is 0"),
        ({"rope_theta": "1e4"}, "rope_theta"),
    ],
)
def test_what_is_not_supported_is_one_sentence(values, words):
    with pytest.raises(UserError, match=words) as error:
        rope.read(Fields(values, "config.json"), positions=64)
    assert "\n" not in str(error.value)
