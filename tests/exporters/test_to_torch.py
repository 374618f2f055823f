"""Every head, tuning mode and family through torch, in a process that has torch and nothing of us.

One subprocess loads all exported directories; the tests compare what it gives with JAX.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from ape_jax import UserError
from ape_jax.exporters import parts, to_dual_encoder, to_torch

OWN = {"image.standardize": False}  # Statistics are of frozen towers.
POOLED = {"image.head.name": "linear", "text.head.name": "linear", "embed": 24}
LILT = {**OWN, **POOLED, "text.pooling": "cls"}


def head(name, image=None, **more):
    image = {} if image is None else {"image.head.name": image, "embed": 24}
    return {"text.head.name": name, **image, **more}


def tuned(image, text, **more):
    return {**LILT, "image.tune": image, "text.tune": text, **more}


CASES = {
    "ape": ({"text.head.depth": 3, "text.head.width": 48}, {}),
    "star_mlp": (
        head(
            "star_mlp", "star_mlp", **{"image.layer": 1, "text.layer": 1, "image.pooling": "mean"}
        ),
        {},
    ),
    "token_pool_mlp": (
        head("token_pool_mlp", "token_pool_mlp", **OWN, **{"image.pooling": "none"}),
        {},
    ),
    "attention_pool": (
        head(
            "linear+attention_pool",
            "attention_pool",
            **OWN,
            **{"image.pooling": "none", "image.head.heads": 4, "text.head.queries": 2},
        ),
        {},
    ),
    "transformer": (
        head("transformer", "linear", **{"text.head.depth": 2, "text.head.activation": "relu"}),
        {},
    ),
    "joined layers": (
        head("linear+token_mlp", "linear")
        | {"image.layer": (-1, 1), "image.pooling": "cls+mean"}
        | {"text.layer": (0, -1), "text.pooling": "cls+max"},
        {},
    ),
    "means of languages": (head("linear+token_mlp", "linear", **{"data.language": "tongue"}), {}),
    "cut to a prefix": (head("linear+token_mlp", "linear", **{"eval.dim": 9}), {}),
    "fixed weights": (
        head("linear+token_mlp", "linear", **{"start.method": "cca", "start.weights": "kept"}),
        {},
    ),
    "towers in int8": (
        {**POOLED, "image.param_dtype": "int8", "text.param_dtype": "int8"},
        {},
    ),
    "sum": (head("linear+token_pool_mlp+lookup"), {}),
    "lora and append": (tuned("lora", "append+adapter"), {}),
    "adapter+layernorm": (tuned("adapter+layernorm", "adapter+layernorm"), {}),
    "clip": ({**tuned("full", "full"), "loss.name": "sigmoid", "loss.bias": -3.0}, {}),
}
MORE = {  # Other families, and what differs little from the cases above.
    "pooled_mlp": (
        head(
            "pooled_mlp", "pooled_mlp", **{"image.pooling": "cls+mean", "text.head.norm": "batch"}
        ),
        {},
    ),
    "identity": ({"text.head.name": "identity", "image.layer": 0, "image.pooling": "mean"}, {}),
    "layernorm and adapter": (tuned("layernorm", "adapter"), {}),
    "append and layernorm": (tuned("append", "layernorm"), {}),
    "bitfit and lora": (tuned("bitfit", "lora"), {}),
    "residual_mlp": (
        head("residual_mlp", "residual_mlp", **{"text.pooling": "max+weightedmean+last"}),
        {},
    ),
    "cca": ({"method": "cca"}, {}),
    "lit": ({**OWN, **POOLED, "text.tune": "full", "text.pooling": "cls"}, {}),
    "top": (tuned("top:1", "top:1", **{"text.layer": 1}), {}),
    "vit and roberta": (tuned("adapter", "adapter"), {"image": "vit", "text": "roberta"}),
    "deit and distilbert": (
        tuned("adapter", "adapter", **{"image.pooling": "mean"}),
        {"image": "deit", "text": "distilbert"},
    ),
    "joined inner layers": (
        head("token_mlp", "linear", **{"image.layer": (1, 0), "image.pooling": "mean"}),
        {"image": "vit"},
    ),
    "joined layers of a decoder": (
        head("transformer", "linear", **{"text.layer": (1, -1)}),
        {"text": "gemma3"},
    ),
    "joined layers of clip": (
        head("star_mlp", "linear", **{"text.layer": (1, -1), "text.pooling": "last"}),
        {"text": "clip_text"},
    ),
    "joined layers of a norm after pooling": (
        head("token_mlp", "linear", **{"image.layer": (1, -1), "image.pooling": "cls"}),
        {"image": "beit"},
    ),
    "dinov3": (tuned("append+adapter", "lora"), {"image": "dinov3"}),
    "radio": (tuned("append+adapter", "lora"), {"image": "radio"}),
    "pixio": (tuned("adapter", "lora", **{"image.pooling": "cls+mean"}), {"image": "pixio"}),
    "mlcd": (tuned("append", "lora"), {"image": "mlcd"}),
    "aimv2": (tuned("adapter+layernorm", "append"), {"image": "aimv2"}),
    "registers and mpnet": (
        tuned("append", "append", **{"image.pooling": "mean"}),
        {"image": "registers", "text": "mpnet"},
    ),
    "electra": (tuned("adapter", "adapter"), {"text": "electra"}),
    "megatron": ({**tuned("adapter", "adapter"), "text.layer": 1}, {"text": "megatron"}),
    "t5": ({**tuned("adapter", "adapter"), "text.layer": 1}, {"text": "t5"}),
    "albert": ({**tuned("adapter", "adapter"), "text.layer": 1}, {"text": "albert"}),
    "mae": (tuned("adapter", "adapter"), {"image": "vit_mae"}),
    "msn": (tuned("layernorm", "adapter", **{"image.layer": 1}), {"image": "vit_msn"}),
    "ijepa": (tuned("append", "adapter"), {"image": "ijepa"}),
    "tipsv2": (tuned("bitfit", "adapter", **{"image.size": 40}), {"image": "tipsv2"}),
    "blip": (tuned("adapter", "adapter"), {"image": "blip"}),
    "beit": (
        tuned("adapter", "adapter", **{"image.pooling": "cls+mean", "image.size": 40}),
        {"image": "beit"},
    ),
    "beit, inner layer": (
        tuned("top:1", "adapter", **{"image.pooling": "mean", "image.layer": 1}),
        {"image": "beit"},
    ),
    "convnext": (tuned("layernorm", "adapter"), {"image": "convnext"}),
    "convnextv2": (
        head("token_mlp", "linear", **OWN, **{"image.tune": "full"}),
        {"image": "convnextv2"},
    ),
    "dinov3_convnext": (
        head("token_pool_mlp", "token_pool_mlp", **OWN, **{"image.pooling": "none"}),
        {"image": "dinov3_convnext"},
    ),
    "qwen3": (
        tuned("adapter", "adapter+lora+append", **{"text.layer": 1, "text.pooling": "last"}),
        {"text": "qwen3"},
    ),
    "gemma3": (tuned("adapter", "append", **{"text.pooling": "last"}), {"text": "gemma3"}),
    "deberta": (tuned("adapter", "adapter"), {"text": "deberta"}),
    "clip towers": (
        {**tuned("adapter", "adapter"), "text.pooling": "last"},
        {"image": "clip", "text": "clip_text"},
    ),
    "siglip and prefix": (
        {**head("token_mlp", "linear"), "text.prefix": "a picture of ", "image.size": 40},
        {"image": "siglip"},
    ),
}
DUAL_ENCODER = {
    "dual clip": (
        {**tuned("append", "lora"), "text.pooling": "last"},
        {"image": "clip", "text": "clip_text"},
    ),
}
DUAL_ENCODERS = {
    "dual dinov2": ({**POOLED, "text.pooling": "last"}, {"text": "clip_text"}),
    "dual weights": (
        {**POOLED, "text.pooling": "last", "start.method": "cca", "start.weights": "kept"},
        {"text": "clip_text"},
    ),
    "dual cut": ({**POOLED, "text.pooling": "last", "eval.dim": 9}, {"text": "clip_text"}),
    "dual dinov3": ({**POOLED, "text.pooling": "last"}, {"image": "dinov3", "text": "clip_text"}),
    "dual pixio": ({**POOLED, "text.pooling": "last"}, {"image": "pixio", "text": "clip_text"}),
    "dual siglip": (
        {"text.head.name": "linear", "text.pooling": "last"},
        {"image": "siglip", "text": "clip_text"},
    ),
}


def through_torch(root, made, inputs, cases, dual_encoders):
    """What JAX has for each case, what torch gives, and the folder of the directories."""
    runs = {}
    for writer, chosen in ((to_torch, cases), (to_dual_encoder, dual_encoders)):
        for name, (settings, towers) in chosen.items():
            runs[name] = made(settings, **towers)
            (root / name).mkdir()
            writer.write(runs[name], root / name)
    job = {
        "directories": {name: str(root / name) for name in cases},
        "dual_encoders": {name: str(root / name) for name in dual_encoders},
        "images": inputs.images,
        "plain_images": inputs.images[-2:],
        "texts": inputs.texts,
        "again": "adapter+layernorm",
        "copy": str(root / "copy"),
        "pipeline": "ape",
        "sentence": "siglip and prefix",
        "out": str(root / "out.npz"),
    }
    (root / "job.json").write_text(json.dumps(job))
    environment = {**os.environ, "HF_MODULES_CACHE": str(root / "modules"), "HF_HUB_OFFLINE": "1"}
    script = Path(__file__).with_name("in_torch.py")
    command = [sys.executable, "-P", str(script), str(root / "job.json")]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
    assert not done.returncode, done.stderr[-4000:]
    with np.load(root / "out.npz") as out:
        return runs, dict(out), root


@pytest.fixture(scope="module")
def exported(made, inputs, tmp_path_factory):
    root = tmp_path_factory.mktemp("exported")
    return through_torch(root, made, inputs, CASES, DUAL_ENCODER)


@pytest.fixture(scope="module")
def exported_more(made, inputs, tmp_path_factory):
    root = tmp_path_factory.mktemp("more")
    return through_torch(root, made, inputs, MORE, DUAL_ENCODERS)


def assert_same(exported, name, images, texts):
    runs, out, _ = exported
    for ours, theirs in (
        (runs[name].encode_images(images), out[f"{name}/images"]),
        (runs[name].encode_texts(texts), out[f"{name}/texts"]),
    ):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= 1e-4
        assert (ours * theirs).sum(axis=1).min() >= 0.99999
        # They would also be equal if all inputs gave one embedding.
        assert (theirs @ theirs.T).min() < 0.999


@pytest.mark.parametrize("name", CASES)
def test_torch_gives_the_embeddings_of_jax(exported, inputs, name):
    assert_same(exported, name, inputs.images, inputs.texts)


def test_dual_encoder_gives_the_embeddings_of_jax(exported, inputs):
    assert_same(exported, "dual clip", inputs.images[-2:], inputs.texts)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_torch_gives_the_embeddings_of_jax_for_every_family(exported_more, inputs, name):
    assert_same(exported_more, name, inputs.images, inputs.texts)


@pytest.mark.slow
def test_sentence_transformers_give_the_embeddings_of_jax(exported_more, inputs):
    runs, out, _ = exported_more
    run = runs["siglip and prefix"]
    np.testing.assert_allclose(out["sentence/texts"], run.encode_texts(inputs.texts), atol=1e-4)
    np.testing.assert_allclose(out["sentence/images"], run.encode_images(inputs.images), atol=1e-4)
    assert out["sentence/width"] == parts.embed(run.model) == 24


@pytest.mark.slow
@pytest.mark.parametrize("name", DUAL_ENCODERS)
def test_every_dual_encoder_gives_the_embeddings_of_jax(exported_more, inputs, name):
    assert_same(exported_more, name, inputs.images[-2:], inputs.texts)


@pytest.mark.parametrize("name", ["ape", "clip"])
def test_logits_are_scaled_cosines_with_the_bias(exported, inputs, name):
    runs, out, _ = exported
    run = runs[name]
    scale, bias = run.model.logit_scale(run.trainable, run.frozen)
    assert (bias is None) == (name == "ape")
    cosines = out[f"{name}/images"] @ out[f"{name}/texts"].T
    expected = float(scale) * cosines + (0.0 if bias is None else float(bias))
    np.testing.assert_allclose(out[f"{name}/logits"], expected, rtol=1e-4, atol=1e-4)


def test_zero_shot_pipeline_gives_the_softmax_of_the_logits(exported, inputs):
    runs, out, _ = exported
    run = runs["ape"]
    scale, _ = run.model.logit_scale(run.trainable, run.frozen)
    cosines = run.encode_images(inputs.images[-1:]) @ run.encode_texts(inputs.texts)[:3].T
    np.testing.assert_allclose(
        out["pipeline"], jax.nn.softmax(scale * cosines[0]), rtol=1e-3, atol=1e-5
    )


def test_saved_again_by_transformers_it_is_the_same(exported):
    _, out, _ = exported
    for what in ("images", "texts"):
        np.testing.assert_array_equal(out[f"again/{what}"], out[f"adapter+layernorm/{what}"])


def test_directory_holds_no_pickle_and_tensors_in_f32(exported):
    _, _, root = exported
    names = {path.name for path in (root / "ape").iterdir()}
    assert names == {
        "README.md",
        "checksums_ape.py",
        "config.json",
        "config_sentence_transformers.json",
        "essential_ape.py",
        "model.safetensors",
        "modeling_ape.py",
        "modules.json",
        "preprocessor_config.json",
        "processing_ape.py",
        "processor_config.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert {a.dtype for a in load_file(root / "ape/model.safetensors").values()} == {
        np.dtype("float32")
    }


def test_blocks_that_are_not_read_are_not_exported(exported):
    _, _, root = exported
    config = json.loads((root / "star_mlp/config.json").read_text())
    assert config["vision_config"]["num_hidden_layers"] == 1
    assert not any("layer.1." in name for name in load_file(root / "star_mlp/model.safetensors"))


def test_card_names_towers_method_and_figures(exported):
    runs, _, root = exported
    card = (root / "ape/README.md").read_text()
    tower = Path(runs["ape"].config.image.tower)
    for words in (f"`{tower.name}`", "token_mlp", "| x (", "i2t R@1", "`pairs.jsonl`"):
        assert words in card
    assert str(tower.parent) not in card  # A path of this machine is nobody else's concern.


@pytest.mark.parametrize(
    ("settings", "towers", "words"),
    [
        ({}, {}, "bert class pools texts"),
        (POOLED, {"image": "vit", "text": "clip_text"}, "vit class pools images"),
        ({**POOLED, "text.pooling": "mean"}, {"text": "clip_text"}, "text.pooling='mean'"),
        ({**POOLED, "image.pooling": "mean"}, {"text": "clip_text"}, "image.pooling='mean'"),
        (tuned("adapter", "frozen"), {"text": "clip_text"}, "image.tune='adapter'"),
        ({**POOLED, "image.layer": 1}, {"text": "clip_text"}, "image.layer=1"),
        ({**POOLED, "image.layer": (1, -1)}, {"text": "clip_text"}, "joins several layers"),
        ({"text.prefix": "a "}, {"text": "clip_text"}, "prefix 'a '"),
        ({}, {"text": "clip_text"}, "text head is TokenMLP"),
        ({**POOLED, "embed": 48, "text.pooling": "last"}, {"text": "clip_text"}, "from 32 to 48"),
    ],
)
def test_what_a_dual_encoder_cannot_express_is_one_sentence(
    made, tmp_path, settings, towers, words
):
    with pytest.raises(UserError, match=words) as error:
        to_dual_encoder.write(made(settings, **towers), tmp_path)
    assert "\n" not in str(error.value) and "--format torch" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_asif_is_refused(made, tmp_path):
    with pytest.raises(UserError, match="asif"):
        to_torch.write(made({"method": "asif"}), tmp_path)
