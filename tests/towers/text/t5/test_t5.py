"""Encoders of T5, mT5 and umT5 against transformers."""

import dataclasses

import jax
import numpy as np
import pytest
import torch
import transformers as t
from flax.traverse_util import unflatten_dict

from ape_jax import towers
from ape_jax.align.tuning.selection import flatten
from ape_jax.errors import UserError
from ape_jax.nn.positions import relative_buckets
from ape_jax.towers.family import FAMILIES
from ape_jax.towers.files import names

SIZES = {"vocab_size": 60, "d_model": 32, "num_layers": 2, "num_heads": 3, "d_kv": 8, "d_ff": 48}
RELATIVE = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 10}
MODELS = {
    "t5": lambda: t.T5EncoderModel(t.T5Config(**SIZES)),
    "t5, gated, other buckets": lambda: t.T5EncoderModel(
        t.T5Config(**SIZES, **RELATIVE, feed_forward_proj="gated-gelu")
    ),
    "mt5": lambda: t.MT5EncoderModel(t.MT5Config(**SIZES)),
    "umt5": lambda: t.UMT5EncoderModel(t.UMT5Config(**SIZES)),
    "umt5, other buckets": lambda: t.UMT5EncoderModel(t.UMT5Config(**SIZES, **RELATIVE)),
}
WHOLE = {
    "t5 with its decoder": lambda: t.T5ForConditionalGeneration(
        t.T5Config(**SIZES, decoder_start_token_id=0)
    ),
    "t5 with a classifier": lambda: t.T5ForTokenClassification(t.T5Config(**SIZES)),
    "umt5 with its decoder": lambda: t.UMT5Model(t.UMT5Config(**SIZES)),
}
LENGTHS = (30, 5, 1, 17)


@pytest.mark.parametrize("name", MODELS)
def test_every_real_token_equals_transformers(tmp_path, text_reference, capsys, name):
    model = text_reference.randomize(MODELS[name]())
    path = text_reference.save(model, tmp_path)
    tower = towers.load(path, kind="text", dtype="float32")
    assert "not read" not in capsys.readouterr().err
    assert tower.config.pooling == "mean"
    batches = text_reference.both_sides(lengths=LENGTHS)
    outs = text_reference.assert_every_token(tower, model, batches)
    for batch, out in zip(batches, outs):
        tokens = text_reference.run(model, batch).tokens
        mean = np.stack([row[mask].mean(0) for row, mask in zip(tokens, batch["mask"])])
        text_reference.assert_close(out.pooled, mean)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_exported_is_that_encoder_in_transformers(tmp_path, text_reference, name):
    model = text_reference.randomize(MODELS[name]())
    tower = towers.load(text_reference.save(model, tmp_path), kind="text")
    torch_class, config = FAMILIES["t5"].torch, tower.config
    params = unflatten_dict(flatten(jax.tree.map(np.asarray, tower.params)), sep="/")
    tensors = names.to_file(torch_class.table(config), params, heads=config.heads)
    described = torch_class.describe(config, "mean")
    _, again = towers.build(described)
    assert dataclasses.asdict(again) == dataclasses.asdict(config) | {
        "max_length": again.max_length
    }
    encoder = t.AutoModelForTextEncoding.from_config(t.AutoConfig.for_model(**described)).eval()
    loaded = encoder.load_state_dict({n: torch.tensor(a) for n, a in tensors.items()}, strict=False)
    assert not loaded.unexpected_keys and loaded.missing_keys == ["encoder.embed_tokens.weight"]
    for batch in text_reference.both_sides(lengths=LENGTHS):
        want = text_reference.run(model, batch).tokens
        np.testing.assert_array_equal(text_reference.run(encoder, batch).tokens, want)


@pytest.mark.parametrize("name", WHOLE)
def test_files_of_whole_models_give_their_encoder(tmp_path, text_reference, name):
    model = text_reference.randomize(WHOLE[name]())
    tower = towers.load(text_reference.save(model, tmp_path), kind="text")
    table = model.get_input_embeddings().weight.detach().numpy()
    np.testing.assert_array_equal(tower.params["embed"]["token"], table)


def test_the_token_table_may_have_the_name_that_old_encoders_gave_it(tmp_path, text_reference):
    from safetensors.numpy import load_file, save_file

    model = text_reference.randomize(MODELS["t5"]())
    path = text_reference.save(model, tmp_path)
    tensors = load_file(path / "model.safetensors")
    tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")
    save_file(tensors, path / "model.safetensors")
    tower = towers.load(path, kind="text")
    table = tensors["encoder.embed_tokens.weight"]
    np.testing.assert_array_equal(tower.params["embed"]["token"], table)


@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (8, 10), (64, 256)])
def test_buckets_equal_transformers(buckets, distance):
    from transformers.models.t5.modeling_t5 import T5Attention

    offset = torch.arange(600)[None] - torch.arange(600)[:, None]
    want = T5Attention._relative_position_bucket(offset, True, buckets, distance)
    got = relative_buckets(600, buckets=buckets, distance=distance)
    np.testing.assert_array_equal(got, want.numpy())


def test_defaults_are_those_of_the_transformers_configs():
    for model_type, config in (("t5", t.T5Config), ("mt5", t.MT5Config), ("umt5", t.UMT5Config)):
        _, ours = towers.build({"model_type": model_type})
        _, theirs = towers.build({**config().to_dict(), "model_type": model_type})
        assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)


@pytest.mark.parametrize(
    ("key", "value"),
    [("relative_attention_num_buckets", 6), ("feed_forward_proj", "gated-mish"), ("d_kv", 0)],
)
def test_a_config_that_is_not_supported_is_a_user_error(key, value):
    with pytest.raises(UserError, match=key):
        towers.build({"model_type": "t5", **SIZES, key: value})
