"""Damaged descriptions by timm, open_clip and PEFT: as `test_damage` has it for transformers'."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.towers import damage
from tests.towers.test_damage import good, outcome, taken_files, taken_values  # noqa: F401

WIDTH, PATCH, SIDE = 16, 8, 16
TIMM = {
    "architecture": "vit_tiny_patch16_224",
    "num_classes": 0,
    "num_features": WIDTH,
    "global_pool": "token",
    "model_args": {
        "img_size": SIDE,
        "patch_size": PATCH,
        "embed_dim": WIDTH,
        "depth": 2,
        "num_heads": 2,
    },
    "pretrained_cfg": {
        "tag": "augreg",
        "custom_load": False,
        "input_size": [3, SIDE, SIDE],
        "fixed_input_size": True,
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "crop_mode": "center",
        "mean": [0.5, 0.4, 0.5],
        "std": [0.5, 0.5, 0.5],
        "num_classes": 0,
        "pool_size": None,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    },
}
OPEN_CLIP = {
    "model_cfg": {
        "embed_dim": 12,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": SIDE,
            "layers": 2,
            "width": WIDTH,
            "head_width": 8,
            "patch_size": PATCH,
        },
        "text_cfg": {
            "context_length": 12,
            "vocab_size": 60,
            "width": WIDTH,
            "heads": 2,
            "layers": 2,
            "hf_tokenizer_name": "x",
        },
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.4, 0.3],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}
ADAPTER = {
    "peft_type": "LORA",
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["query"],
    "base_model_name_or_path": "nobody/nothing",
    "bias": "none",
    "fan_in_fan_out": False,
    "use_rslora": False,
    "use_dora": False,
    "modules_to_save": None,
    "task_type": None,
    "rank_pattern": {},
    "alpha_pattern": {},
}


def layer(shape, name, bias=True):
    found = {f"{name}.weight": shape}
    return found | ({f"{name}.bias": shape[:1]} if bias else {})


def timm_shapes():
    d = WIDTH
    found = {"cls_token": (1, 1, d), "pos_embed": (1, 5, d)}
    found |= layer((d, 3, PATCH, PATCH), "patch_embed.proj") | layer((d,), "norm")
    for n in range(2):
        parts = {"norm1": (d,), "attn.qkv": (3 * d, d), "attn.proj": (d, d), "norm2": (d,)}
        parts |= {"mlp.fc1": (4 * d, d), "mlp.fc2": (d, 4 * d)}
        for name, shape in parts.items():
            found |= layer(shape, f"blocks.{n}.{name}")
    return found


def open_clip_blocks(before):
    d, found = WIDTH, {}
    for n in range(2):
        block = f"{before}transformer.resblocks.{n}"
        found |= {
            f"{block}.attn.in_proj_weight": (3 * d, d),
            f"{block}.attn.in_proj_bias": (3 * d,),
        }
        parts = {"ln_1": (d,), "attn.out_proj": (d, d), "ln_2": (d,)}
        parts |= {"mlp.c_fc": (4 * d, d), "mlp.c_proj": (d, 4 * d)}
        for name, shape in parts.items():
            found |= layer(shape, f"{block}.{name}")
    return found


def open_clip_shapes():
    d = WIDTH
    found = {"visual.class_embedding": (d,), "visual.positional_embedding": (5, d)}
    found |= {"visual.proj": (d, 12), "visual.conv1.weight": (d, 3, PATCH, PATCH)}
    found |= layer((d,), "visual.ln_pre") | layer((d,), "visual.ln_post")
    found |= {"token_embedding.weight": (60, d), "positional_embedding": (12, d)}
    found |= {"text_projection": (d, 12), "logit_scale": ()} | layer((d,), "ln_final")
    return found | open_clip_blocks("visual.") | open_clip_blocks("")


def adapter_shapes():
    name = "base_model.model.encoder.layer.0.attention.self.query.lora_{}.weight"
    return {name.format("A"): (2, WIDTH), name.format("B"): (WIDTH, 2)}


def save(shapes, path):
    rng = np.random.default_rng(0)
    save_file({k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}, path)


@pytest.fixture(scope="module")
def others(good, text_reference, tmp_path_factory):  # noqa: F811
    """A whole directory of each kind."""
    made = {name: tmp_path_factory.mktemp(name) for name in ("timm", "open_clip")}
    save(timm_shapes(), made["timm"] / "model.safetensors")
    (made["timm"] / "config.json").write_text(json.dumps(TIMM))
    save(open_clip_shapes(), made["open_clip"] / "open_clip_model.safetensors")
    (made["open_clip"] / "open_clip_config.json").write_text(json.dumps(OPEN_CLIP))
    text_reference.write_tokenizer(made["open_clip"])
    made["adapter"] = tmp_path_factory.mktemp("adapter") / "text"
    shutil.copytree(good["text"], made["adapter"])
    save(adapter_shapes(), made["adapter"] / "adapter_model.safetensors")
    (made["adapter"] / "adapter_config.json").write_text(json.dumps(ADAPTER))
    return made


FILES = [
    ("timm", "image", "config.json"),
    ("open_clip", "image", "open_clip_config.json"),
    ("open_clip", "text", "open_clip_config.json"),
    ("adapter", "text", "adapter_config.json"),
]
# Of a file and its key: values of which nothing is said, since the file may have them. Without the
# sections the libraries' own defaults hold.
ALLOWED = {
    ("config.json", "pretrained_cfg"): [None, {}],
    ("open_clip_config.json", "preprocess_cfg"): [None, {}],
    ("config.json", "pretrained_cfg/crop_pct"): [1.5],
    ("adapter_config.json", "lora_alpha"): [-1, 1.5],
    ("adapter_config.json", "fan_in_fan_out"): [True],
    ("adapter_config.json", "use_rslora"): [True],
}


@pytest.mark.parametrize(("folder", "kind", "name"), FILES)
def test_a_file_that_is_none_or_is_damaged_is_one_sentence(folder, kind, name, others, tmp_path):
    assert not taken_files(others[folder], kind, name, tmp_path / "tower")


@pytest.mark.parametrize(("folder", "kind", "name"), FILES)
def test_a_value_of_another_kind_is_one_sentence_or_changes_nothing(
    folder, kind, name, others, tmp_path
):
    assert not taken_values(others[folder], kind, name, tmp_path / "tower", ALLOWED)


@pytest.mark.parametrize("name", ["spiece.model", "sentencepiece.bpe.model", "tokenizer.model"])
def test_a_damaged_file_of_sentencepiece_is_one_sentence(name, good, tmp_path):  # noqa: F811
    (tmp_path / "whole").mkdir()
    shutil.copytree(good["text"], tmp_path / "whole/text")
    whole = tmp_path / "whole/text"
    for own in ("tokenizer.json", "vocab.txt"):
        (whole / own).unlink(missing_ok=True)
    (whole / name).write_bytes(np.random.default_rng(0).bytes(4096))
    taken = []
    for label, change in (*damage.no_file(name), *damage.contents(whole, name, seed=0)):
        path = damage.copied(whole, tmp_path / "tower")
        change(path)
        if not isinstance(outcome(path, "text"), str):
            taken.append(label)
    assert not taken
