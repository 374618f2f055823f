"""SigLIP's text tower against transformers: padding is a part of the text."""

import json

import numpy as np
import pytest
import torch
import transformers

from ape_jax import towers

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 16,
    "eos_token_id": 3,
    "bos_token_id": 2,
}


def tiny(text_reference, path):
    config = transformers.SiglipTextConfig(**SIZES)
    model = text_reference.randomize(transformers.SiglipTextModel(config))
    return model, text_reference.save(model, path)


def test_tokens_and_pooled_equal_transformers(tmp_path, text_reference):
    model, path = tiny(text_reference, tmp_path)
    tower, _ = text_reference.assert_parity(path, model, text_reference.batch())
    batch = tower.prepare(["w1 w2 w3", "w9", "w5 " * 30])
    want = text_reference.run(model, batch)
    with torch.inference_mode():
        got = model.head(torch.tensor(np.asarray(tower(batch).pooled))).numpy()
    text_reference.assert_close(got, want.pooled)


@pytest.mark.parametrize("whole", [True, False])
def test_siglip_2_equals_transformers(tmp_path, text_reference, whole):
    if whole:
        vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        vision |= {"intermediate_size": 48, "num_patches": 16, "patch_size": 4}
        config = transformers.Siglip2Config(text_config=SIZES, vision_config=vision)
        model = transformers.Siglip2Model(config)
    else:
        model = transformers.Siglip2TextModel(transformers.Siglip2TextConfig(**SIZES))
    path = text_reference.save(text_reference.randomize(model), tmp_path)
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *"abcdefghijklmnopqrstuvwxyz▁"]
    vocab = {word: place for place, word in enumerate(words)}
    transformers.Siglip2Tokenizer(vocab=vocab, merges=[]).save_pretrained(path)
    reference = model.text_model if whole else model
    text_reference.assert_parity(path, reference, text_reference.batch())


def test_every_text_is_filled_up_and_nothing_of_it_is_masked(tmp_path, text_reference):
    _, path = tiny(text_reference, tmp_path)
    tower = towers.load(path, kind="text")
    assert tower.config.attends_padding
    batch = tower.prepare(["w1", "w2 w3"], length=8)  # A shorter one is not for this tower.
    assert batch["ids"].shape == (2, 16) and batch["mask"].all()
    assert batch["ids"][0, 3:].tolist() == [1] * 13  # The padding of its config.
    assert tower.prepare.lengths(["w1", "w2 " * 40]).tolist() == [16, 42]
    shorter = towers.load(path, kind="text", max_length=8).prepare(["w1"])
    assert shorter["ids"].shape == (1, 8)


def test_names_lead_back_to_the_file(tmp_path, text_reference):
    _, path = tiny(text_reference, tmp_path)
    text_reference.assert_names_lead_back(path, {"head.weight", "head.bias"})


def test_text_is_read_in_lower_case_and_without_punctuation(tmp_path, text_reference):
    _, path = tiny(text_reference, tmp_path)
    settings = {"tokenizer_class": "SiglipTokenizer"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    prepare = towers.load(path, kind="text").prepare
    plain, written = prepare(["w1 w2", "W1,   w2! "])["ids"]
    np.testing.assert_array_equal(plain, written)


def test_real_configs_have_the_real_sizes():
    """google/siglip-base-patch16-224 leaves everything to transformers' defaults."""
    _, config = towers.build({"model_type": "siglip", "text_config": {}}, kind="text")
    assert (config.width, config.depth, config.heads, config.max_length) == (768, 12, 12, 64)
    assert (config.vocab_size, config.activation) == (32000, "gelu_pytorch_tanh")
