"""Keys of a study: what passes, and the sentence for what does not."""

import pytest

from ape_jax import config as config_lib
from ape_jax.errors import UserError
from ape_jax.studies.config import StudyConfig


@pytest.fixture
def config():
    config = config_lib.default()
    config.image.tower, config.text.tower, config.data.pairs = "demo:a", "demo:b", "pairs.jsonl"
    return config


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("study.methods", "('ape', 'apes')", ["study.methods", "'cca_start'"]),
        ("study.sizes", "(5, 5)", ["study.sizes", "different"]),
        ("study.steps", "((5,),)", ["study.steps", "(number of pairs, steps)"]),
        ("study.set", "(('apes', 'optim.lr', 1.0),)", ["study.set", "config key"]),
        ("study.domains", "(('a', 'x.jsonl', ()),)", ["study.domains", "((set, pairs), ...)"]),
        ("study.domains", "(('a/b', 'x', (('t', 'y'),)),)", ["study.domains", "names once"]),
        ("study.reference", "apes", ["study.reference", "study.methods"]),
        ("study.sedes", "2", ["study.sedes", "study.seeds"]),
    ],
)
def test_bad_override_is_one_sentence(config, key, value, words):
    with pytest.raises(UserError) as error:
        config_lib.override(config, {key: value}, StudyConfig)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_a_misspelt_key_in_a_file_is_an_error_of_the_study_alone(config):
    config.study.sedes = 2
    config_lib.resolve(config)
    with pytest.raises(UserError, match=r"config\.study\.sedes: no such key; did you mean"):
        config_lib.resolve(config, StudyConfig)


def test_a_study_is_the_experiment_and_its_section(config):
    config.study.methods = ("ape",)
    config_lib.override(config, {"study.seeds": "2"}, StudyConfig)
    resolved = config_lib.resolve(config, StudyConfig)
    assert (resolved.study.methods, resolved.study.seeds, resolved.study.sizes) == (("ape",), 2, ())
    assert config_lib.resolve(resolved) == config_lib.resolve(config)
