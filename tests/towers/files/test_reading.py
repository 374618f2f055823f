"""Settings beside the weights are applied, known to be irrelevant, or named."""

import json

import pytest
import transformers

from ape_jax import towers
from ape_jax.towers.family import FAMILIES
from ape_jax.towers.files import reading, sources

TYPES = sorted(
    {
        (model_type, family.kind)
        for family in FAMILIES.values()
        for model_type in family.model_types
        if model_type in transformers.CONFIG_MAPPING
    }
)


def unread(path, kind=None):
    with reading.tower("tower") as said:
        towers.build(path, kind=kind)
    return said.lines()


@pytest.mark.parametrize(("model_type", "kind"), TYPES)
def test_what_transformers_saves_is_all_read_or_irrelevant(tmp_path, model_type, kind):
    transformers.CONFIG_MAPPING[model_type]().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    full = transformers.CONFIG_MAPPING[model_type]().to_dict()
    (tmp_path / "config.json").write_text(json.dumps(full | config))
    assert unread(tmp_path, kind) == ()


@pytest.mark.parametrize(("model_type", "kind"), TYPES)
def test_a_key_that_nobody_knows_is_named(tmp_path, model_type, kind):
    config = transformers.CONFIG_MAPPING[model_type]().to_dict() | {"made_up": 3}
    section = {"image": "vision_config", "text": "text_config"}[kind]
    if section in config:
        config[section]["made_up_too"] = {"a": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    want = f"made_up, {section}.made_up_too" if section in config else "made_up"
    assert unread(tmp_path, kind) == (f"tower: not read: config.json: {want}",)


def test_a_setting_that_would_matter_is_named_but_not_where_it_changes_nothing(tmp_path):
    for value, want in ((False, ()), (True, ("tower: not read: config.json: attention_bias",))):
        config = {"model_type": "bert", "attention_bias": value, "hidden_dropout_prob": 0.3}
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert unread(tmp_path) == want


def test_what_several_readers_ask_of_one_file_adds_up(tmp_path):
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({"a": 1, "b": 2, "c": {"d": 3, "e": 4}, "pad_token": "x"}))
    with reading.tower("tower") as said:
        sources.read_json(path).get("a")
        assert "b" in sources.read_json(path)
        sources.read_json(path)["c"]["d"]
    assert said.lines() == ("tower: not read: tokenizer_config.json: c.e",)


def test_the_line_is_said_once(tmp_path, capsys):
    path = tmp_path / "config.json"
    path.write_text('{"odd": 1, "model_type": "x"}')
    for _ in range(2):
        with reading.tower(str(tmp_path)):
            sources.read_json(path).get("model_type")
    assert capsys.readouterr().err == f"{tmp_path}: not read: config.json: odd\n"


def test_nothing_is_said_of_a_tower_that_is_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"odd": 1}')
    with pytest.raises(ValueError):
        towers.read(tmp_path)
    assert capsys.readouterr().err == ""


def test_a_key_that_stands_twice_is_said(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"model_type": "bert", "vocab_size": 5, "vocab_size": 7}'
    )
    assert unread(tmp_path) == ("tower: config.json has vocab_size twice; the last is taken",)
