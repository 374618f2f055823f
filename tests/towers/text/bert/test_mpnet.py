"""MPNet towers against transformers."""

import numpy as np
import pytest
import torch
import transformers
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.nn.positions import relative_buckets

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 66,
    "layer_norm_eps": 1e-5,
}


def test_every_real_token_equals_transformers_beyond_the_exact_buckets(tmp_path, text_reference):
    model = text_reference.randomize(transformers.MPNetModel(transformers.MPNetConfig(**SIZES)))
    path = text_reference.save(model, tmp_path)
    batch = text_reference.batch(pad_id=1, lengths=(40, 5, 1, 64))
    tower, _ = text_reference.assert_parity(path, model, batch)
    assert tower.config.pooling == "mean" and tower.config.max_length == 64


def test_masked_language_model_files_load(tmp_path, text_reference):
    model = transformers.MPNetForMaskedLM(transformers.MPNetConfig(**SIZES))
    path = text_reference.save(text_reference.randomize(model), tmp_path)
    tower = towers.load(str(path), kind="text")
    table = model.mpnet.encoder.relative_attention_bias.weight.detach().numpy()
    np.testing.assert_array_equal(tower.params["relative_bias"], table)


def test_names_lead_back_to_the_file(tmp_path, text_reference):
    model = text_reference.randomize(transformers.MPNetModel(transformers.MPNetConfig(**SIZES)))
    path = text_reference.save(model, tmp_path)
    text_reference.assert_names_lead_back(path, {"pooler.dense.weight", "pooler.dense.bias"})


def test_buckets_equal_transformers_to_the_longest_text():
    offset = torch.arange(512)[None] - torch.arange(512)[:, None]
    want = MPNetEncoder.relative_position_bucket(offset, num_buckets=32)
    np.testing.assert_array_equal(relative_buckets(512), want.numpy())


def test_the_rest_of_the_tower_resumes_from_an_inner_layer(tmp_path, text_reference):
    model = text_reference.randomize(transformers.MPNetModel(transformers.MPNetConfig(**SIZES)))
    tower = towers.load(str(text_reference.save(model, tmp_path)), kind="text", dtype="float32")
    batch = text_reference.batch(pad_id=1)
    inner, want = tower(batch, layer=1), tower(batch)
    got = tower.tower.resume(tower.params, inner.tokens, inner.mask, start=1)
    text_reference.assert_close(got.tokens, want.tokens, 1e-6)


def test_too_few_buckets_are_a_user_error():
    with pytest.raises(UserError, match="relative_attention_num_buckets"):
        towers.build({"model_type": "mpnet", **SIZES, "relative_attention_num_buckets": 16})
