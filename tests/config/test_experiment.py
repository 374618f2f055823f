"""The schema: what passes, and the sentence for what does not."""

import json

import pytest

from ape_jax import config as config_lib
from ape_jax.config import schema
from ape_jax.errors import UserError


@pytest.fixture
def config():
    config = config_lib.default()
    config.image.tower, config.text.tower, config.data.pairs = "demo:a", "demo:b", "pairs.jsonl"
    return config


def test_every_default_passes_its_own_check():
    free = {"image.tower", "text.tower", "data.pairs"}
    for key, field in schema.keys(config_lib.Config).items():
        assert key in free or field.check(field.default), key


def test_resolved_config_survives_json(config):
    config.augment.crop, config.cache.views = (0.2, 1.0), 4
    config.optim.lr_mults = ((".*scale", 5.0),)
    config.data.eval = {"test": "test.jsonl"}
    flat = config_lib.flatten(config_lib.resolve(config))
    read = config_lib.unflatten(json.loads(json.dumps(flat)))
    assert config_lib.flatten(config_lib.resolve(read)) == flat


def test_overrides_reach_nested_keys_and_new_eval_sets(config):
    config_lib.override(config, {"text.head.depth": "6", "data.eval.x": "x.jsonl", "optim.lr": "1"})
    resolved = config_lib.resolve(config)
    assert resolved.text.head.depth == 6
    assert resolved.data.eval["x"] == "x.jsonl"
    assert resolved.optim.lr == 1.0 and isinstance(resolved.optim.lr, float)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("text.hed.depth", "3", ["text.hed.depth", "text.head.depth"]),
        ("depth", "3", ["no such key", "image.head.depth"]),
        ("text.head.depth", "three", ["text.head.depth", "integer", "three"]),
        ("text.head.depth", "0", ["text.head.depth", "from 1 to 64"]),
        ("seed", "{[]: 1}", ["seed", "integer"]),
        ("seed", "9223372036854775808", ["seed", "integer"]),
        ("optim.lr", "1" + "0" * 400, ["optim.lr", "number"]),
        ("data.eval", "{1: 'x'}", ["data.eval"]),
        ("image.size", "1000000", ["image.size", "4096"]),
        ("text.head.depth", "2.5", ["text.head.depth", "integer"]),
        ("optim.lr", "True", ["optim.lr", "number"]),
        ("optim.lr", "nan", ["optim.lr", "number"]),
        ("optim.name", "adamx", ["optim.name", "adamw"]),
        ("augment.crop", "(0.0, 0.0)", ["augment.crop", "low"]),
        ("augment.crop", "(0.8, 0.2)", ["augment.crop", "low"]),
        ("augment.randaugment", "(2, 11)", ["augment.randaugment", "magnitude"]),
        ("augment.words", "(4, 1.0)", ["augment.words", "rate"]),
        ("augment.words", "(0, 0.2)", ["augment.words", "variants"]),
        ("augment.flip", "yes", ["augment.flip", "True or False"]),
        ("optim.decay_on", "(", ["optim.decay_on", "regular expression"]),
        ("data.on_error", "ignore", ["data.on_error", "skip"]),
        ("data.background", "(0, 0, 300)", ["data.background", "255"]),
        ("image.layer", "__import__('os')", ["image.layer", "integer"]),
        ("method", "lasso", ["method", "'asif'"]),
    ],
)
def test_bad_override_is_one_sentence(config, key, value, words):
    with pytest.raises(UserError) as error:
        config_lib.override(config, {key: value})
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image.tower": ""}, ["image.tower", "hf:org/name", "demo:NAME", "found none"]),
        ({"data.pairs": ""}, ["data.pairs", "found none"]),
        ({"image.tune": "full"}, ["image.standardize", "False"]),
        ({"embed": 64}, ["embed", "identity"]),
        ({"augment.flip": True}, ["cache.views"]),
        ({"optim.warmup": 1000}, ["optim.warmup", "train.steps"]),
        ({"loss.scale": 200.0}, ["loss.scale", "loss.scale_max"]),
        ({"data.eval": {"a b": "x"}}, ["data.eval"]),
        ({"no.such": 1}, ["no.such"]),
    ],
)
def test_keys_that_do_not_go_together_are_one_sentence(config, changes, words):
    flat = {**config_lib.flatten(config), **changes}
    with pytest.raises(UserError) as error:
        config_lib.resolve(config_lib.unflatten(flat))
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_file_arguments_take_the_type_of_their_default():
    args = config_lib.parse_arg("image=demo:x,steps=5,runlocal", image="", steps=1, runlocal=False)
    assert (args.image, args.steps, args.runlocal) == ("demo:x", 5, True)


@pytest.mark.parametrize("arg", ["imagee=x", "steps=x", "runlocal=3"])
def test_wrong_file_argument_is_named(arg):
    with pytest.raises(UserError, match=arg.split("=")[0]):
        config_lib.parse_arg(arg, image="", steps=1, runlocal=False)


def test_the_digest_is_that_of_the_settings_that_differ(config):
    first = config_lib.digest(config_lib.resolve(config))
    config.cache.dir, config.train.log_every = "elsewhere", 7
    assert config_lib.digest(config_lib.resolve(config)) == first
    config.optim.lr = 0.5
    assert config_lib.digest(config_lib.resolve(config)) != first


def test_a_section_that_another_command_reads_is_left_out(config):
    config.study.methods = ("ape",)
    assert "study.methods" not in config_lib.flatten(config_lib.resolve(config))
    with pytest.raises(UserError, match=r"config\.study\.seeds: only ape_jax\.study reads it"):
        config_lib.override(config, {"study.seeds": "2"})


def test_a_copy_has_other_values_which_are_checked(config):
    resolved = config_lib.resolve(config)
    assert resolved.replace({"train.batch": 64}).train.batch == 64
    assert resolved.train.batch == 512 and resolved.side("image") is resolved.image
    with pytest.raises(UserError, match=r"config\.train\.batch: expected an integer"):
        resolved.replace({"train.batch": 1})


def test_a_field_has_the_default_of_its_key():
    for key, field in schema.keys(config_lib.Config).items():
        assert schema.values(config_lib.Config())[key] == field.default, key


def test_a_config_file_may_set_any_type_that_a_key_takes():
    config = config_lib.default()
    config.image.tower, config.text.tower = "demo:vit_s14", "demo:minilm"
    config.image.layer, config.data.pairs = (9, 11, -1), ["a.csv", "b.csv"]
    resolved = config_lib.resolve(config)
    assert resolved.image.layer == (9, 11, -1)
    assert type(config_lib.default().image.layer) is int
