"""Settings beside the weights are applied, known to be irrelevant, or named."""

import json

import pytest
import transformers

from ape_jax import towers
from ape_jax.towers.family import FAMILIES, find
from ape_jax.towers.files import reading, sources

TYPES = sorted(
    {
        (model_type, family.kind)
        for family in FAMILIES.values()
        for model_type in family.model_types
        if model_type in transformers.CONFIG_MAPPING
    }
)


# Published models have these settings, and the class's defaults describe none of them.
PUBLISHED = {
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 256,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_biased_input": False,
    }
}


def as_saved(model_type):
    return transformers.CONFIG_MAPPING[model_type](**PUBLISHED.get(model_type, {}))


def unread(path, kind=None):
    with reading.tower("tower") as said:
        towers.build(path, kind=kind)
    return said.lines()


def not_read(lines):
    """Those on keys that were not read, without those on what was assumed."""
    return [line for line in lines if "not read" in line]


@pytest.mark.parametrize(("model_type", "kind"), TYPES)
def test_what_transformers_saves_is_all_read_or_irrelevant(tmp_path, model_type, kind):
    as_saved(model_type).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    full = as_saved(model_type).to_dict()
    (tmp_path / "config.json").write_text(json.dumps(full | config))
    assert not_read(unread(tmp_path, kind)) == []


@pytest.mark.parametrize(("model_type", "kind"), TYPES)
def test_a_key_that_nobody_knows_is_named(tmp_path, model_type, kind):
    config = as_saved(model_type).to_dict() | {"made_up": 3}
    section = {"image": "vision_config", "text": "text_config"}[kind]
    if section in config:
        config[section]["made_up_too"] = {"a": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    want = f"made_up, {section}.made_up_too" if section in config else "made_up"
    assert not_read(unread(tmp_path, kind)) == [f"tower: not read: config.json: {want}"]


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


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "##s"]
BYTES = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4, "a": 5, "c": 6}
CLIP_WORDS = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2, "a</w>": 3}
TOKENIZERS = {
    "bert": lambda: transformers.BertTokenizer(vocab={w: i for i, w in enumerate(WORDS)}),
    "distilbert": lambda: transformers.BertTokenizer(
        vocab={w: i for i, w in enumerate(WORDS)}, do_lower_case=False, model_max_length=64
    ),
    "roberta": lambda: transformers.RobertaTokenizer(vocab=BYTES, merges=[]),
    "clip_text_model": lambda: transformers.CLIPTokenizer(vocab=CLIP_WORDS, merges=[]),
}


@pytest.mark.parametrize("model_type", TOKENIZERS)
def test_what_tokenizers_of_transformers_save_is_all_read_or_irrelevant(tmp_path, model_type):
    TOKENIZERS[model_type]().save_pretrained(tmp_path)
    transformers.CONFIG_MAPPING[model_type]().save_pretrained(tmp_path)
    with reading.tower("tower") as said:
        prepared(tmp_path, "text")
    assert said.lines() == ()


PROCESSORS = "ViT DeiT Beit Bit CLIP ChineseCLIP Blip Siglip Pvt ConvNext Levit".split()


@pytest.mark.parametrize("processor", PROCESSORS)
def test_what_image_processors_of_transformers_save_is_all_read_or_irrelevant(tmp_path, processor):
    made = getattr(transformers, f"{processor}ImageProcessorPil")()
    made.save_pretrained(tmp_path)
    transformers.ViTConfig().save_pretrained(tmp_path)
    with reading.tower("tower") as said:
        prepared(tmp_path, "image")
    assert said.lines() == ()


def prepared(path, kind):
    """All of a tower but its weights."""
    label = path / "config.json"
    family, fields = find(sources.read_json(label), str(label), kind, path)
    return family.prepare(path, family.parse(fields), {})


def test_a_prompt_that_was_not_chosen_is_no_setting_that_was_not_read(tmp_path):
    path = tmp_path / "config_sentence_transformers.json"
    path.write_text('{"prompts": {"query": "q", "passage": "p"}, "default_prompt_name": "query"}')
    with reading.tower("tower") as said:
        settings = sources.read_json(path)
        assert settings.get("prompts").get(settings.get("default_prompt_name")) == "q"
    assert said.lines() == ()


@pytest.mark.parametrize("model_type", ["clip", "chinese_clip", "metaclip_2"])
def test_the_older_section_beside_the_newer_decides_as_in_transformers(tmp_path, model_type):
    config = transformers.CONFIG_MAPPING[model_type]().to_dict()
    config["vision_config"] |= {"hidden_size": 64, "num_attention_heads": 4, "image_size": 48}
    config["vision_config_dict"] = {"hidden_size": 96, "num_attention_heads": 6}
    (tmp_path / "config.json").write_text(json.dumps(config))
    want = transformers.AutoConfig.from_pretrained(tmp_path).vision_config
    with reading.tower("tower") as said:
        ours = towers.build(tmp_path, kind="image")[1]
    assert (ours.width, ours.heads) == (want.hidden_size, want.num_attention_heads) == (96, 6)
    assert ours.image_size == want.image_size == 224
    assert said.lines() == ()
