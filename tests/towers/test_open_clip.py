"""open_clip's models from their own files, against open_clip itself, which runs apart."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tokenizers
import transformers
from PIL import Image
from safetensors.numpy import load_file, save_file

import ape_jax
from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.towers.vision.timm import layout
from ape_jax.towers.vision.timm.architectures import named

TEXTS = ["a photo of a cat", "Zwei   Hunde, am See!", "snake_case & <b>", "x " * 90]
VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8}
TRUNK = {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 32, "patch_size": 8}
TEXT = {"context_length": 20, "vocab_size": 99, "width": 24, "heads": 3, "layers": 2}
BERT = {
    "model_type": "bert",
    "vocab_size": 99,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 30,
    "pad_token_id": 0,
}
LAST = {"no_causal_mask": True, "pool_type": "last", "hf_tokenizer_name": "x"}
MODELS = {
    "clip": {
        "tokenizer": "clip",
        "model": {
            "embed_dim": 16,
            "quick_gelu": True,
            "vision_cfg": VISION,
            "text_cfg": {**TEXT, "vocab_size": 49408},
        },
        "preprocess": {"mean": [0.5, 0.4, 0.3], "interpolation": "bicubic"},
    },
    "clipa": {
        "tokenizer": "bert",
        "model": {
            "embed_dim": 16,
            "vision_cfg": {
                **VISION,
                "no_ln_pre": True,
                "pool_type": "avg",
                "final_ln_after_pool": True,
                "ls_init_value": 0.1,
                "act_kwargs": {"approximate": "tanh"},
                "norm_kwargs": {"eps": 1e-3},
            },
            "text_cfg": {**TEXT, **LAST, "tokenizer_kwargs": {"strip_sep_token": True}},
        },
        "preprocess": {"resize_mode": "longest", "fill_color": 77},
    },
    "siglip": {
        "tokenizer": "words",
        "trunk": TRUNK,
        "model": {
            "embed_dim": 32,
            "init_logit_bias": -9.0,
            "custom_text": True,
            "vision_cfg": {
                "image_size": 32,
                "timm_model_name": "vit_base_patch16_siglip_224",
                "timm_pool": "map",
                "timm_proj": "none",
            },
            "text_cfg": {
                **TEXT,
                **LAST,
                "proj_bias": True,
                "norm_kwargs": {"eps": 1e-6},
                "tokenizer_kwargs": {"clean": "canonicalize"},
            },
        },
        "preprocess": {"resize_mode": "squash", "mean": [0.5] * 3, "std": [0.5] * 3},
    },
    "biomed": {
        "tokenizer": "bert",
        "trunk": TRUNK,
        "hf": BERT,
        "model": {
            "embed_dim": 16,
            "vision_cfg": {
                "image_size": 32,
                "timm_model_name": "vit_base_patch16_224",
                "timm_pool": "",
                "timm_proj": "linear",
            },
            "text_cfg": {
                "context_length": 20,
                "hf_model_name": "nobody/bert",
                "hf_pooler_type": "cls_last_hidden_state_pooler",
                "hf_proj_type": "mlp",
                "hf_tokenizer_name": "x",
            },
        },
        "preprocess": {"interpolation": "bilinear"},
    },
    "poolers": {
        "tokenizer": "bert",
        "trunk": TRUNK,
        "hf": BERT,
        "model": {
            "embed_dim": 16,
            "vision_cfg": {
                "image_size": 32,
                "timm_model_name": "vit_base_patch16_224",
                "timm_pool": "token",
                "timm_proj": "mlp",
            },
            "text_cfg": {
                "context_length": 20,
                "hf_model_name": "nobody/bert",
                "hf_pooler_type": "cls_pooler",
                "hf_proj_type": "linear",
                "hf_tokenizer_name": "x",
            },
        },
        "preprocess": {},
    },
    "classifier": {
        "tokenizer": "bert",
        "trunk": TRUNK,
        "model": {
            "embed_dim": 16,
            "custom_text": True,
            "vision_cfg": {
                "image_size": 32,
                "timm_model_name": "vit_base_patch16_clip_224",
                "timm_pool": "token",
                "timm_proj": None,
            },
            "text_cfg": {**TEXT, "pool_type": "eos", "eos_id": 3, "hf_tokenizer_name": "x"},
        },
        "preprocess": {},
    },
}


def write_tokenizers(folder):
    """One of BERT's kind, and one that ends texts with </s>, as T5's does."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    pieces = [chr(n) for n in range(97, 123)]
    bert = [*special, *pieces, *(f"##{piece}" for piece in pieces), *",!&<>_"]
    (folder / "bert").mkdir()
    (folder / "bert" / "vocab.txt").write_text("\n".join(bert))
    bert = transformers.BertTokenizer(vocab={word: n for n, word in enumerate(bert)})
    bert.save_pretrained(folder / "bert")
    ends = ["<pad>", "</s>", "<unk>", *(f"▁{p}" for p in pieces), *pieces, "▁"]
    t5 = tokenizers.Tokenizer(
        tokenizers.models.Unigram([(word, -float(n)) for n, word in enumerate(ends)], unk_id=2)
    )
    t5.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    t5.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=t5, pad_token="</s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder / "words")


@pytest.fixture(scope="module")
def made(tmp_path_factory, apart):
    """A folder with every model, and what open_clip makes of them."""
    folder = tmp_path_factory.mktemp("open_clip")
    write_tokenizers(folder)
    specs = [
        {"trunk": {}, **spec, "name": name, "tokenizer": str(folder / spec["tokenizer"])}
        for name, spec in MODELS.items()
    ]
    (folder / "specs.json").write_text(json.dumps(specs))
    apart("open_clip_models.py", folder / "specs.json", folder)
    return folder


@pytest.fixture(autouse=True)
def tiny_trunks(monkeypatch):
    """The names of trunks stand for the size that they are made with here."""

    def tiny(name):
        found = named(name)
        return found and dataclasses.replace(found, size=(32, 4))

    monkeypatch.setattr(layout, "named", tiny)


def relative(got, want):
    assert got.shape == want.shape
    return np.abs(np.asarray(got) - want).max() / np.abs(want).max()


def images(want):
    return [Image.fromarray(want[f"raw{n}"]) for n in range(3)]


@pytest.mark.parametrize("name", MODELS)
def test_embeddings_equal_open_clip(made, name):
    model, want = ape_jax.load(str(made / name)), np.load(made / f"{name}.npz")
    assert relative(model.encode_image(images(want)), want["images"]) < 1e-5
    assert relative(model.encode_text(TEXTS), want["texts"]) < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_pixels_and_ids_are_open_clips(made, name):
    want = np.load(made / f"{name}.npz")
    got = towers.load(made / name, kind="image").prepare(images(want))["image"]
    for n in range(3):
        np.testing.assert_array_equal(got[n], want[f"pixels{n}"])
    batch = towers.load(made / name, kind="text").prepare(TEXTS)
    length = batch["ids"].shape[1]
    np.testing.assert_array_equal(
        np.where(batch["mask"], batch["ids"], 0),
        np.where(batch["mask"], want["ids"][:, :length], 0),
    )
    real = want["ids"][:, length:]
    assert (real == want["ids"][0, -1]).all()  # Padding alone is left out.


@pytest.mark.parametrize("name", MODELS)
def test_nothing_of_the_files_is_left_unread(made, name):
    for kind in ("image", "text"):
        assert towers.load(made / name, kind=kind).tower.notes == ()


def test_another_image_size_resizes_the_table_as_the_forward_pass_does(made):
    want = np.load(made / "clip.npz")
    native = towers.load(made / "clip", kind="image", dtype="float32")
    tower = towers.load(made / "clip", kind="image", dtype="float32", image_size=48)
    batch = tower.prepare(images(want))
    assert batch["image"].shape == (3, 48, 48, 3)
    assert relative(tower(batch).tokens, native(batch).tokens) < 2e-6


def changed(made, path, *, section=None, tensors=None, name="clip", files=None, **keys):
    """A model with another open_clip_config.json, other tensors or without some of its files."""
    shutil.copytree(made / name, path)
    found = json.loads((path / "open_clip_config.json").read_text())
    at = found["model_cfg"] if section in ("vision_cfg", "text_cfg") else found
    at = at if section is None else at[section]
    for key, value in keys.items():
        at[key] = value
    (path / "open_clip_config.json").write_text(json.dumps(found))
    for file in files or ():
        (path / file).unlink()
    if tensors:
        arrays = load_file(path / "open_clip_model.safetensors")
        save_file(tensors(arrays), path / "open_clip_model.safetensors")
    return path


V, T = {"section": "vision_cfg", "kind": "image"}, {"section": "text_cfg", "kind": "text"}
BAD = {
    "a ResNet": ({**V, "layers": [3, 4, 6, 3]}, "ResNet"),
    "CoCa": ({"section": "model_cfg", "kind": "image", "multimodal_cfg": {"width": 8}}, "CoCa"),
    "an attention pool": ({**V, "attentional_pool": True}, "'attentional_pool' is True"),
    "a trunk of another kind": (
        {**V, "name": "classifier", "timm_model_name": "convnext_base"},
        "torch:timm:convnext_base",
    ),
    "an oblong image": ({**V, "image_size": [32, 40]}, "'image_size' is"),
    "a head width": ({**V, "head_width": 7}, "'head_width' is 7"),
    "no object": ({"kind": "image", "model_cfg": [1]}, "'model_cfg' is list"),
    "a text of another kind": ({**T, "embed_cls": True}, "'embed_cls' is True"),
    "padding that is attended to": ({**T, "no_causal_mask": True}, "'no_causal_mask' is true"),
    "a tokenizer's mode": ({**T, "tokenizer_mode": "clips"}, "'tokenizer_mode' is 'clips'"),
    "no tokenizer": (
        {"kind": "text", "name": "clip", "files": ["tokenizer.json", "vocab.json"]},
        "holds no tokenizer.json; put the tokenizer",
    ),
    "no kind": ({"kind": None}, "write kind='image' or kind='text'"),
    "a missing tensor": (
        {"kind": "text", "tensors": lambda a: {k: v for k, v in a.items() if k != "ln_final.bias"}},
        "ln_final.bias",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_read_is_one_sentence(made, tmp_path, name):
    change, words = BAD[name]
    kind = change["kind"]
    files = [f for f in change.get("files", ()) if (made / "clip" / f).exists()]
    rest = {k: v for k, v in change.items() if k not in ("kind", "files")}
    path = changed(made, tmp_path / "model", files=files, **rest)
    with pytest.raises(UserError) as error:
        towers.load(path, kind=kind)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_pickled_weights_are_named_with_the_remedy(made, tmp_path):
    path = changed(made, tmp_path / "model", files=["open_clip_model.safetensors"])
    (path / "open_clip_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"open_clip_pytorch_model.bin.*convert it once"):
        towers.load(path, kind="image")


def test_a_tensor_of_no_part_is_named(made, tmp_path):
    more = {"extra": np.zeros(3, np.float32)}
    path = changed(made, tmp_path / "model", tensors=lambda a: {**a, **more})
    with pytest.raises(UserError, match="'extra' is in no part"):
        ape_jax.load(str(path))
