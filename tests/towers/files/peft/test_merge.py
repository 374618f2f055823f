"""Adapters beside the weights, against PEFT's own merge_and_unload()."""

import json
import shutil

import numpy as np
import peft
import pytest
import safetensors.numpy
import torch
import transformers
from safetensors.numpy import load_file, save_file

from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.towers.files import reading, sources
from ape_jax.towers.files.peft import merge

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = SIZES | {"intermediate_size": 48}
IMAGE = WIDE | {"image_size": 32, "patch_size": 8}
TEXT = WIDE | {"vocab_size": 60, "max_position_embeddings": 20, "pad_token_id": 0}
TEXT |= {"bos_token_id": 1, "eos_token_id": 2}
MODELS = {
    "bert": lambda: transformers.BertModel(transformers.BertConfig(**TEXT)),
    "bert with a head": lambda: transformers.BertForSequenceClassification(
        transformers.BertConfig(**TEXT)
    ),
    "vit": lambda: transformers.ViTModel(transformers.ViTConfig(**IMAGE)),
    "dinov2": lambda: transformers.Dinov2Model(
        transformers.Dinov2Config(**SIZES, mlp_ratio=2, image_size=32, patch_size=8)
    ),
    "clip": lambda: transformers.CLIPModel(
        transformers.CLIPConfig(text_config=TEXT, vision_config=IMAGE, projection_dim=16)
    ),
    "siglip": lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**IMAGE)),
    "nomic": lambda: transformers.AutoModel.from_config(
        transformers.CONFIG_MAPPING["nomic_bert"](**TEXT)
    ),
}
QUERIES = ["query", "value", "dense"]
CASES = {
    "plain": ("bert", {"target_modules": QUERIES}),
    "all linear": ("bert", {"target_modules": "all-linear", "r": 3, "lora_alpha": 7}),
    "rank-stabilised": ("bert", {"target_modules": QUERIES, "use_rslora": True, "r": 5}),
    "patterns": (
        "bert",
        {
            "target_modules": QUERIES,
            "rank_pattern": {"query": 2, "layer.1.attention.self.value": 6},
            "alpha_pattern": {r"layer\.0\.attention\.self\.query": 3, "value": 11},
        },
    ),
    "biases": ("bert", {"target_modules": ["query"], "bias": "all"}),
    "own biases": ("bert", {"target_modules": ["query"], "bias": "lora_only"}),
    "a bias of the pair": ("bert", {"target_modules": ["value"], "lora_bias": True}),
    "tables": ("bert", {"target_modules": ["word_embeddings", "query"]}),
    "whole modules": ("bert", {"target_modules": ["key"], "modules_to_save": ["LayerNorm"]}),
    "transposed": ("bert", {"target_modules": ["query"], "fan_in_fan_out": False}),
    "under a prefix, with a head": (
        "bert with a head",
        {"target_modules": ["query"], "task_type": "SEQ_CLS"},
    ),
    "renamed in memory": ("vit", {"target_modules": ["q_proj", "o_proj", "fc1", "fc2"]}),
    "a convolution": ("vit", {"target_modules": ["projection", "v_proj"]}),
    "dinov2": ("dinov2", {"target_modules": ["q_proj", "k_proj", "o_proj", "fc1"]}),
    "two towers": ("clip", {"target_modules": ["q_proj", "v_proj", "fc2"]}),
    "siglip": ("siglip", {"target_modules": ["k_proj", "out_proj"], "exclude_modules": r"head.*"}),
    "fused in the file": ("nomic", {"target_modules": ["q_proj", "v_proj", "up_proj", "o_proj"]}),
}


def randomise(parameters, seed, scale=0.2):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)


def saved(tmp_path, name, settings):
    """(directory of the base, of the adapter, of what PEFT merges)."""
    model = MODELS[name]()
    randomise(model.parameters(), 0)
    base, adapter, merged = (tmp_path / part for part in ("base", "adapter", "merged"))
    model.save_pretrained(base)
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 9} | settings)
    wrapped = peft.get_peft_model(
        transformers.AutoModel.from_pretrained(base) if "head" not in name else model, config
    )
    randomise((p for p in wrapped.parameters() if p.requires_grad), 1, 0.4)
    wrapped.save_pretrained(adapter)
    wrapped.merge_and_unload().save_pretrained(merged)
    return base, adapter, merged


def beside(base, adapter):
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(adapter / name, base / name)
    return base


@pytest.mark.parametrize("case", CASES)
def test_tensors_equal_those_that_peft_merges(tmp_path, case):
    base, adapter, merged = saved(tmp_path, *CASES[case])
    before = load_file(base / "model.safetensors")
    tensors = merge.open_weights(beside(base, adapter))
    want = load_file(merged / "model.safetensors")
    assert tensors.shapes.keys() == want.keys()
    changed = 0
    for name, array in want.items():
        np.testing.assert_allclose(tensors.read(name), array, rtol=1e-6, atol=1e-6, err_msg=name)
        changed += not np.array_equal(before[name], array)
    assert changed >= 2


def test_a_tower_is_the_merged_one_and_its_digest_says_so(tmp_path):
    base, adapter, merged = saved(tmp_path, *CASES["two towers"])
    plain = towers.read(base, kind="image")[0].digest
    with_adapter, params = towers.read(beside(base, adapter), kind="image")
    _, want = towers.read(merged, kind="image")
    assert with_adapter.digest != plain
    got, want = (p["blocks"]["attention"]["query"]["kernel"] for p in (params, want))
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    (line,) = [note for note in with_adapter.notes if "LoRA" in note]
    assert "LoRA on 12 modules) is merged into its weights" in line


def test_half_precision_weights_are_merged_in_f32(tmp_path):
    base, adapter, merged = saved(tmp_path, *CASES["plain"])
    narrow = {k: v.astype(np.float16) for k, v in load_file(base / "model.safetensors").items()}
    save_file(narrow, base / "model.safetensors")
    name = "encoder.layer.0.attention.self.query.weight"
    got = merge.open_weights(beside(base, adapter)).read(name)
    want = load_file(merged / "model.safetensors")[name]
    assert got.dtype == np.float32 and np.abs(got - want).max() < 2e-3


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def together(tmp_path):
    base, adapter, _ = saved(tmp_path, *CASES["plain"])
    return beside(base, adapter)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"peft_type": "IA3"}, "an adapter of the kind 'IA3'"),
        ({"peft_type": "ADALORA"}, "an adapter of the kind 'ADALORA'"),
        ({"peft_type": None}, "is no adapter of PEFT"),
        ({"use_dora": True}, "'use_dora' is True"),
        ({"init_lora_weights": "pissa"}, "'init_lora_weights' is 'pissa'"),
        ({"trainable_token_indices": [1]}, r"'trainable_token_indices' is \[1\]"),
        ({"alpha_pattern": {"(a+)+b": 3}}, "'alpha_pattern'"),
        ({"lora_alpha": "nine"}, "'lora_alpha' holds 'nine'"),
    ],
)
def test_other_adapters_are_refused_by_name(together, changes, match):
    path = together / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=match) as error:
        merge.open_weights(together)
    assert "merge_and_unload" in str(error.value) or "lora_alpha" in str(error.value)


def change(path, edit):
    tensors = load_file(path)
    edit(tensors)
    safetensors.numpy.save_file(tensors, path)


def test_an_adapter_of_other_weights_is_refused(together):
    first = "base_model.model.encoder.layer.0.attention.self.query.lora_A.weight"
    weights = together / "adapter_model.safetensors"
    change(weights, lambda t: t.update({first: np.zeros((4, 30), np.float32)}))
    with pytest.raises(UserError, match=r"make \[32, 30\], and .* has \[32, 32\]"):
        merge.open_weights(together).read("encoder.layer.0.attention.self.query.weight")
    change(weights, lambda t: t.pop(first))
    with pytest.raises(UserError, match="one half of its LoRA"):
        merge.open_weights(together)
    change(weights, lambda t: t.update({"base_model.model.x.y.lora_A.weight": np.zeros((4, 3))}))
    with pytest.raises(UserError, match=r"such as 'x.y', are in no tensor of the weights"):
        merge.open_weights(together)


def test_a_pickled_or_missing_adapter_is_said(together):
    (together / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"adapter_model\.safetensors of its .* is missing"):
        merge.open_weights(together)
    (together / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="is pickled"):
        merge.open_weights(together)


def test_a_directory_of_an_adapter_alone_takes_the_weights_of_its_base(tmp_path):
    base, adapter, merged = saved(tmp_path, *CASES["two towers"])
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    tower, params = towers.read(adapter, kind="image")
    want = towers.read(merged, kind="image")[1]
    got, want = (p["blocks"]["mlp"]["fc2"]["kernel"] for p in (params, want))
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    assert any(str(base) in note for note in tower.notes)


@pytest.mark.parametrize(
    ("base", "match"),
    [
        (None, "'base_model_name_or_path' is None"),
        ("no/such/place/at/all", "which is neither a directory nor a name on the Hugging Face hub"),
        (7, "'base_model_name_or_path' is 7"),
    ],
)
def test_an_adapter_whose_base_is_not_there_is_one_sentence(tmp_path, base, match):
    _, adapter, _ = saved(tmp_path, *CASES["plain"])
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base}))
    with pytest.raises(UserError, match=match):
        sources.resolve(str(adapter))


def test_all_settings_that_peft_writes_are_read_or_irrelevant(together):
    with reading.tower("tower") as said:
        merge.open_weights(together)
    assert not [line for line in said.lines() if "adapter_config" in line]
