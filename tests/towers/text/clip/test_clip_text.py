"""CLIP text towers against transformers."""

import json

import numpy as np
import pytest
import transformers

from ape_jax import towers

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 16,
    "projection_dim": 24,
    "bos_token_id": 2,
    "eos_token_id": 59,
}
VISION_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 28,
    "patch_size": 14,
}


def tiny(**kwargs):
    return transformers.CLIPTextModel(transformers.CLIPTextConfig(**{**SIZES, **kwargs}))


@pytest.mark.parametrize(
    ("kwargs", "pad_id"),
    [
        ({}, 59),  # CLIP's tokenizers pad with the end-of-text token
        ({"eos_token_id": 2, "hidden_act": "gelu"}, 59),  # the rule of old configs: largest id
    ],
)
def test_tokens_and_pooled_equal_transformers(tmp_path, text_reference, kwargs, pad_id):
    model = text_reference.randomize(tiny(**kwargs))
    path = text_reference.save(model, tmp_path)
    batch = text_reference.batch(pad_id, eos_id=59)
    tower, want = text_reference.assert_parity(path, model, batch)
    assert tower.config.pooling == "last"
    text_reference.assert_close(tower(batch).pooled, want.pooled)


@pytest.mark.parametrize("whole", [True, False])
def test_metaclip_2_ends_at_token_2_whatever_larger_ids_there_are(tmp_path, text_reference, whole):
    sizes = {**SIZES, "eos_token_id": 2, "bos_token_id": 0}
    if whole:
        config = transformers.MetaClip2Config(text_config=sizes, vision_config=VISION_SIZES)
        model = transformers.MetaClip2Model(config)
    else:
        model = transformers.MetaClip2TextModel(transformers.MetaClip2TextConfig(**sizes))
    path = text_reference.save(text_reference.randomize(model), tmp_path)
    reference = model.text_model if whole else model
    batch = text_reference.batch(1, eos_id=2)
    tower, want = text_reference.assert_parity(path, reference, batch)
    text_reference.assert_close(tower(batch).pooled, want.pooled)


@pytest.mark.parametrize("whole", [True, False])
def test_aimv2_equals_transformers(tmp_path, text_reference, whole):
    sizes = {name: value for name, value in SIZES.items() if name != "projection_dim"}
    if whole:
        config = transformers.Aimv2Config(text_config=sizes, vision_config=VISION_SIZES)
        model = transformers.Aimv2Model(config)
    else:
        more = {"qkv_bias": True, "mlp_bias": True}
        model = transformers.Aimv2TextModel(transformers.Aimv2TextConfig(**sizes, **more))
    path = text_reference.save(text_reference.randomize(model), tmp_path)
    reference = model.text_model if whole else model
    batch = text_reference.batch(59, eos_id=59)
    tower, want = text_reference.assert_parity(path, reference, batch)
    text_reference.assert_close(tower(batch).pooled, want.pooled)
    if not whole:
        text_reference.assert_names_lead_back(path, set())


def test_pools_at_the_first_end_of_text(tmp_path, text_reference):
    model = text_reference.randomize(tiny())
    tower = towers.load(str(text_reference.save(model, tmp_path)), kind="text", dtype="float32")
    batch = text_reference.batch(59, eos_id=59)
    batch["ids"][0, 4] = 59
    out = tower(batch)
    text_reference.assert_close(out.pooled, text_reference.run(model, batch).pooled)
    assert out.mask.sum(1).tolist() == [5, 5, 1, 9]
    # Texts padded without a mask, as transformers' own examples have them.
    unmasked = {**batch, "mask": np.ones_like(batch["mask"])}
    np.testing.assert_allclose(tower(unmasked).pooled, out.pooled, rtol=1e-5, atol=1e-6)


def test_a_text_without_end_keeps_its_tokens(tmp_path, text_reference):
    path = text_reference.save(tiny(), tmp_path)
    batch = text_reference.batch(0)
    np.testing.assert_array_equal(towers.load(str(path), kind="text")(batch).mask, batch["mask"])


def test_the_text_tower_of_a_whole_clip_loads(tmp_path, text_reference):
    config = transformers.CLIPConfig(text_config=SIZES, vision_config=VISION_SIZES)
    model = text_reference.randomize(transformers.CLIPModel(config))
    path = text_reference.save(model, tmp_path)
    tower = towers.load(str(path), kind="text", dtype="float32")
    batch = text_reference.batch(59, eos_id=59)
    want = text_reference.run(model.text_model, batch)
    text_reference.assert_close(tower(batch).pooled, want.pooled)


def test_a_text_tower_with_its_projection_loads(tmp_path, text_reference):
    config = transformers.CLIPTextConfig(**SIZES)
    model = text_reference.randomize(transformers.CLIPTextModelWithProjection(config))
    path = text_reference.save(model, tmp_path)
    tower = towers.load(str(path), kind="text", dtype="float32")
    batch = text_reference.batch(59, eos_id=59)
    want = text_reference.run(model.text_model, batch)
    text_reference.assert_close(tower(batch).pooled, want.pooled)


def test_names_lead_back_to_the_file(tmp_path, text_reference):
    path = text_reference.save(text_reference.randomize(tiny()), tmp_path)
    text_reference.assert_names_lead_back(path, set())


def test_real_clip_configs_have_the_real_sizes():
    """openai/clip-vit-base-patch32 leaves nearly everything to transformers' defaults."""
    config = {"model_type": "clip", "text_config": {"model_type": "clip_text_model"}}
    _, config = towers.build(json.loads(json.dumps(config)), kind="text")
    assert (config.width, config.depth, config.heads, config.max_length) == (512, 12, 8, 77)
    assert (config.vocab_size, config.eos_id, config.activation) == (49408, 49407, "quick_gelu")
