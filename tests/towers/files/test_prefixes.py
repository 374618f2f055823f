"""Tensors whose names differ from a tower's by what stands before all of them."""

import json

import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file, save_file

from ape_jax import towers
from ape_jax.errors import UserError

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"intermediate_size": 48}
MODELS = {
    "vit": (transformers.ViTModel, transformers.ViTConfig(**SIZES, image_size=32, patch_size=8)),
    "distilbert": (
        transformers.DistilBertModel,
        transformers.DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=48, vocab_size=60),
    ),
    "clip": (
        transformers.CLIPVisionModel,
        transformers.CLIPVisionConfig(**SIZES, image_size=32, patch_size=8),
    ),
}
PREFIXES = (
    "module.",
    "model.",
    "_orig_mod.",
    "base_model.model.",
    "0.auto_model.",
    "a.b.c.encoder.",
)


@pytest.fixture(params=MODELS)
def saved(request, tmp_path, text_reference):
    kind, config = MODELS[request.param]
    kind(config).save_pretrained(tmp_path)
    text_reference.write_tokenizer(tmp_path)
    return tmp_path


def rename(directory, change):
    path = directory / "model.safetensors"
    tensors = load_file(path)
    save_file(change(tensors), path)


def test_any_prefix_of_all_names_is_found(saved):
    want = towers.read(saved)[1]
    tensors = load_file(saved / "model.safetensors")
    for prefix in PREFIXES:
        rename(saved, lambda _, prefix=prefix: {prefix + n: a for n, a in tensors.items()})
        got = towers.read(saved)[1]
        np.testing.assert_array_equal(
            got["blocks"]["norm1"]["scale"], want["blocks"]["norm1"]["scale"]
        )


def test_what_a_table_ignores_is_ignored_under_a_prefix_too(saved):
    head = {"classifier.bias": np.zeros(3, np.float32)}
    if json.loads((saved / "config.json").read_text())["model_type"] == "vit":
        rename(saved, lambda t: {f"net.{n}": a for n, a in (t | head).items()})
        assert towers.read(saved)[0].config.width == 32


def test_two_towers_under_two_prefixes_are_one_sentence(saved):
    def both(tensors):
        return {
            f"{side}.{n}": a.copy() for side in ("student", "teacher") for n, a in tensors.items()
        }

    rename(saved, both)
    with pytest.raises(UserError, match=r"2 towers .*under 'student.', 'teacher.'; keep") as error:
        towers.read(saved)
    assert "\n" not in str(error.value)


def test_one_tensor_missing_under_a_prefix_is_named_alone(saved):
    names = list(load_file(saved / "model.safetensors"))
    gone = next(
        n
        for n in names
        if n.endswith(("layernorm_after.bias", "layer_norm2.bias", "sa_layer_norm.bias"))
    )
    rename(saved, lambda t: {f"module.{n}": a for n, a in t.items() if n != gone})
    with pytest.raises(UserError, match=f"missing in the file: module.{gone};"):
        towers.read(saved)
