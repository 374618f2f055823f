"""Bad folders: each is refused in one sentence that says what to do, at once, without a compile."""

import json
import os
import re
import shutil
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.towers.family import find
from ape_jax.towers.files import names
from ape_jax.towers.text.bert import bert
from ape_jax.towers.vision.vit import vit

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 24}
CONFIGS = {
    "image": SIZES | {"model_type": "vit", "image_size": 16, "patch_size": 8},
    "text": SIZES | {"model_type": "bert", "vocab_size": 60, "max_position_embeddings": 16},
}
TABLES = {"image": vit.NAMES, "text": bert.NAMES}
PIXELS = {"image_processor_type": "ViTImageProcessor", "size": 16}


@pytest.fixture(scope="module")
def good(tmp_path_factory, text_reference):
    """A good directory of each kind."""
    made = {}
    for kind, config in CONFIGS.items():
        path = made[kind] = tmp_path_factory.mktemp(kind)
        rng = np.random.default_rng(0)
        shapes = names.flat_shapes(towers.abstract_params(towers.build(config)[0]))
        flat = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
        params = names.unflatten_dict(flat, sep="/")
        save_file(names.to_file(TABLES[kind], params, heads=2), path / "model.safetensors")
        (path / "config.json").write_text(json.dumps(config))
    (made["image"] / "preprocessor_config.json").write_text(json.dumps(PIXELS))
    text_reference.write_tokenizer(made["text"])
    return made


def text(name, content):
    return lambda path: (path / name).write_text(content)


def config(**changes):
    def change(path):
        file = path / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def pixels(**changes):
    return text("preprocessor_config.json", json.dumps(PIXELS | changes))


def tensors(edit):
    def change(path):
        found = load_file(path / "model.safetensors")
        save_file(edit(found) or found, path / "model.safetensors")

    return change


def packed(dtype):
    """All matrices in another type."""
    return tensors(lambda t: {n: a.astype(dtype) if a.ndim == 2 else a for n, a in t.items()})


def instead(name, make):
    """Something else in the place of a file."""

    def change(path):
        (path / name).unlink(missing_ok=True)
        make(path / name)

    return change


def loop(path):
    path.symlink_to(path.with_name("other"))
    path.with_name("other").symlink_to(path)


def bytes_at_start(content):
    def change(path):
        (path / "model.safetensors").write_bytes(content)

    return change


def header(values, size=0):
    body = json.dumps(values).encode()
    return bytes_at_start(struct.pack("<Q", len(body)) + body + b"\0" * size)


def shards(change):
    def make(path):
        found = load_file(path / "model.safetensors")
        (path / "model.safetensors").unlink()
        save_file(found, path / "model-00001-of-00001.safetensors")
        weight_map = dict.fromkeys(found, "model-00001-of-00001.safetensors")
        index = path / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": change(path, weight_map)}))

    return make


def moved(name):
    def change(path):
        (path / "model.safetensors").rename(path / name)

    return change


def only(*files):
    """Nothing but these, empty."""

    def change(path):
        for entry in path.iterdir():
            entry.unlink()
        for file in files:
            (path / file).parent.mkdir(exist_ok=True, parents=True)
            (path / file).write_text("{}")

    return change


def prefix(front):
    return tensors(lambda t: {front + n: a for n, a in list(t.items())[1:]})


MISSING = r"missing in the file"
BAD = {
    # The config.
    "no config": (lambda p: (p / "config.json").unlink(), r"no config\.json, which a tower needs"),
    "half a config": (text("config.json", '{"model_type": "vit",'), "is not JSON .*fetch the file"),
    "an empty config": (text("config.json", ""), "is not JSON"),
    "a list": (text("config.json", "[1]"), "holds a list; it must hold an object"),
    "bytes for a config": (
        lambda p: (p / "config.json").write_bytes(b"\xff\xfe\0"),
        "is not UTF-8",
    ),
    "nested deeply": (
        text("config.json", "[" * 200_000),
        r"is not JSON \(it is nested too deeply\)",
    ),
    "a huge number": (text("config.json", '{"hidden_size": ' + "9" * 5000 + "}"), "is not JSON"),
    "a huge file": (text("config.json", " " * (65 << 20)), "is larger than 67 MB"),
    "a pipe": (instead("config.json", os.mkfifo), "is a pipe and no file"),
    "a directory for a config": (instead("config.json", os.mkdir), "is a folder and no file"),
    "a loop of links": (instead("config.json", loop), "is a broken link and no file"),
    "no type": (text("config.json", "{}"), "'model_type' is None, .* such as 'dinov2' or 'bert'"),
    "a list for a type": (config(model_type=["vit"]), r"'model_type' is \['vit'\], so this is no"),
    "a type unknown": (config(model_type="resnet"), r"write torch:hf:NAME_OR_DIR in image\.tower"),
    "a type misspelt": (config(model_type="dinov22"), "did you mean 'dinov2'?"),
    "a text tower for images": (config(model_type="bert"), r"name it in text\.tower, and another"),
    "no size that is a number": (config(hidden_size=float("nan")), "'hidden_size' is nan; write a"),
    "a negative size": (config(num_attention_heads=-2), "'num_attention_heads' is -2; write a"),
    "a billion layers": (config(num_hidden_layers=10**9), "1000 or fewer"),
    "a size beyond all": (
        config(hidden_size=10**30),
        "is a huge number; write a whole number, below",
    ),
    "a norm of infinity": (config(layer_norm_eps=float("inf")), "is inf; write a finite number"),
    "true for a size": (config(hidden_size=True), "'hidden_size' is True; write a whole number"),
    "heads that do not divide": (config(num_attention_heads=3), "which its 3 heads do not divide"),
    "an activation unknown": (
        config(hidden_act="swish9"),
        "'hidden_act' is 'swish9', and gelu, .* supported; .* write torch:hf:NAME",
    ),
    "more layers than tensors": (config(num_hidden_layers=3), MISSING),
    # The weights.
    "no weights": (lambda p: (p / "model.safetensors").unlink(), r"holds no model\.safetensors"),
    "pickled weights": (moved("pytorch_model.bin"), r"can run code .*save_pretrained\(NEW_DIR\)"),
    "weights of TensorFlow": (moved("tf_model.h5"), r"tf_model\.h5, a format that can run code"),
    "half the weights": (
        lambda p: os.truncate(p / "model.safetensors", 900),
        "is no whole safetensors file .*fetch it again",
    ),
    "empty weights": (bytes_at_start(b""), "is no whole safetensors file"),
    "a header of a billion bytes": (
        bytes_at_start(struct.pack("<Q", 10**9) + b"{}"),
        "is no whole safetensors file",
    ),
    "a header that is no JSON": (bytes_at_start(struct.pack("<Q", 4) + b"abcd"), "is no whole"),
    "a tensor beyond the file": (
        header({"a": {"dtype": "F32", "shape": [9, 9], "data_offsets": [0, 324]}}, 8),
        "is no whole safetensors file",
    ),
    "a tensor of unknown type": (
        header({"a": {"dtype": "Q9", "shape": [1], "data_offsets": [0, 1]}}, 1),
        "is no whole safetensors file",
    ),
    "a pipe for weights": (instead("model.safetensors", os.mkfifo), "is a pipe and no file"),
    "a directory for weights": (instead("model.safetensors", os.mkdir), "is a folder and no"),
    "a loop for weights": (instead("model.safetensors", loop), "is a broken link and no file"),
    "a shard that is missing": (
        shards(lambda p, m: m | {"layernorm.bias": "model-00002-of-00001.safetensors"}),
        "lists model-00002-of-00001.safetensors, which is not there; download it too",
    ),
    "a shard elsewhere": (
        shards(lambda p, m: m | {"layernorm.bias": "../x.safetensors"}),
        r"must be a \.safetensors file beside the index",
    ),
    "an index of another kind": (shards(lambda p, m: [1]), "'weight_map' must be an object"),
    "two files of weights": (
        lambda p: (
            shutil.copyfile(p / "model.safetensors", p / "a.safetensors"),
            moved("b.safetensors")(p),
        ),
        r"holds 2 \.safetensors files",
    ),
    "a tensor that is missing": (
        tensors(lambda t: {n: a for n, a in t.items() if n != "layernorm.bias"}),
        r"missing in the file: layernorm\.bias; write the config\.json that belongs to",
    ),
    "a tensor too many": (
        tensors(lambda t: t | {"surprise.weight": np.zeros(3, np.float32)}),
        r"in the file but not in the model: surprise\.weight",
    ),
    "a tensor of another size": (config(intermediate_size=25), "of another shape"),
    "two towers": (
        tensors(lambda t: {f"{s}.{n}": a * 1 for s in ("net_a", "net_b") for n, a in t.items()}),
        "2 towers of this config are in the file, under 'net_a.', 'net_b.'; keep",
    ),
    "a prefix, and a tensor missing": (prefix("module."), rf"{MISSING}: module\.\S+; write"),
    "another family": (config(model_type="dinov2", mlp_ratio=1.5), MISSING),
    # Quantised.
    "float8": (
        packed(ml_dtypes.float8_e4m3fn),
        r"is F8_E4M3, which is quantised; .*dequantize\(\)",
    ),
    "8 bits": (packed(np.int8), "is I8, which is quantised; take the model's original weights"),
    "4 bits, packed": (
        tensors(
            lambda t: (
                {n.replace("query.weight", "query.qweight"): a for n, a in t.items()}
                | {"encoder.layer.0.attention.attention.query.qweight": np.zeros((2, 16), np.int32)}
            )
        ),
        "is I32, which is quantised",
    ),
    "quantised by its config": (
        lambda p: (
            config(quantization_config={"quant_method": "hqq"})(p),
            tensors(lambda t: t | {"encoder.layer.0.W_q": np.zeros((2, 2), np.uint8)})(p),
        ),
        "'quantization_config' is of the method 'hqq'",
    ),
    # The settings of images.
    "settings of images in half": (text("preprocessor_config.json", "{"), "is not JSON"),
    "a list of settings": (text("preprocessor_config.json", "[]"), "holds a list"),
    "a pipe of settings": (pixels(size=[16]), "'size'"),
    "a size of no number": (pixels(size="big"), "'size' is big; write pixels"),
    "a size beyond memory": (pixels(size=10**9), "write pixels, an integer from 1 to 8192"),
    "a processor unknown": (
        pixels(image_processor_type="YolosImageProcessor"),
        r"'YolosImageProcessor' is not supported; write torch:hf:NAME_OR_DIR",
    ),
    "no deviation": (pixels(image_std=[0, 0, 0]), "'image_std' is .* write numbers above 0"),
    "a filter unknown": (pixels(resample=9), "'resample' is 9; write an integer"),
    # Directories of another kind.
    "nothing": (only(), "is empty, and no config.json, which a tower needs"),
    "a CLIP of sentences": (
        only("modules.json", "0_CLIPModel/config.json"),
        r"two towers are in 0_CLIPModel; write \S+/0_CLIPModel",
    ),
    "a folder too high": (only("best/config.json"), r"but best in it does; write \S+/best"),
    "a repository in the cache": (
        only("snapshots/0a1b/config.json", "refs"),
        r"but snapshots/0a1b in it does; write \S+/snapshots/0a1b",
    ),
    "llama.cpp's": (only("model.gguf"), r"model\.gguf, weights in llama\.cpp's format"),
    "ONNX": (only("model.onnx"), r"model\.onnx, a graph in ONNX"),
    "a work directory": (only("checkpoints/1"), "is a work directory of a training and no tower"),
    "big_vision's file": (only("vit.npz"), r"write \S+/vit\.npz"),
    "a checkpoint of Lightning": (
        only("last.ckpt"),
        r"its weights in last\.ckpt, a format that can",
    ),
    # An adapter.
    "an adapter of another kind": (
        text("adapter_config.json", '{"peft_type": "IA3"}'),
        r"of the kind 'IA3', and only LoRA is merged here; .*merge_and_unload\(\)",
    ),
    "an adapter without tensors": (
        text("adapter_config.json", '{"peft_type": "LORA"}'),
        r"adapter_model\.safetensors of its adapter_config\.json is missing; fetch it too",
    ),
}


def refused(path, kind, match):
    with pytest.raises(UserError) as error:
        towers.read(path, kind=kind)
    message = str(error.value)
    assert "\n" not in message and len(message) < 2000
    assert re.search(match, message), message
    assert str(path) in message or "tower" in message


@pytest.mark.parametrize("name", BAD)
def test_a_bad_folder_is_one_sentence(good, tmp_path, name):
    change, match = BAD[name]
    path = tmp_path / "tower"
    shutil.copytree(good["image"], path)
    change(path)
    refused(path, "image", match)


BAD_TEXTS = {
    "no tokenizer": (lambda p: (p / "tokenizer.json").unlink(), "tokenizer"),
    "a broken tokenizer": (text("tokenizer.json", '{"model": 3}'), "not a tokenizer"),
    "a pipe for a tokenizer": (
        instead("tokenizer.json", os.mkfifo),
        "tokenizer",
    ),
    "settings in half": (text("tokenizer_config.json", "{"), "is not JSON"),
    "a tokenizer too large": (
        config(vocab_size=50),
        "of another shape",
    ),
    "a text too long for it": (config(max_position_embeddings=2), "positions for 2 tokens"),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_a_bad_folder_of_texts_is_one_sentence(good, tmp_path, name):
    change, match = BAD_TEXTS[name]
    path = tmp_path / "tower"
    shutil.copytree(good["text"], path)
    change(path)
    refused(path, "text", match)


WRONG = ["x", "", -1, 1.5, [], {}, [1, 2], {"a": 1}, True, float("nan"), 10**30, [[[]]], None]
PIXEL_KEYS = (
    "size crop_size image_mean image_std resample do_resize do_center_crop do_normalize do_rescale "
    "rescale_factor do_pad image_processor_type feature_extractor_type"
)
# Files beside the weights, and their keys.
SIDECARS = {
    "image": {"preprocessor_config.json": PIXEL_KEYS, "processor_config.json": "image_processor"},
    "text": {
        "tokenizer_config.json": "model_max_length pad_token cls_token tokenizer_class "
        "do_lower_case added_tokens_decoder truncation_side add_prefix_space strip_accents",
        "sentence_bert_config.json": "max_seq_length do_lower_case",
        "config_sentence_transformers.json": "prompts default_prompt_name",
        "special_tokens_map.json": "pad_token",
        "1_Pooling/config.json": "pooling_mode pooling_mode_mean_tokens include_prompt",
        "modules.json": "0",
    },
}


@pytest.mark.parametrize("kind", SIDECARS)
def test_values_of_a_wrong_type_in_files_beside_are_no_traceback(good, tmp_path, kind):
    path = tmp_path / "tower"
    shutil.copytree(good[kind], path)
    fields = towers.build(path, kind=kind)[1]
    assert fields.width == 16
    for file, keys in SIDECARS[kind].items():
        (path / file).parent.mkdir(exist_ok=True)
        before = (path / file).read_text() if (path / file).is_file() else None
        for value in WRONG:
            for content in (value, *({key: value} for key in keys.split())):
                (path / file).write_text(json.dumps(content))
                try:
                    prepared(path, kind)
                except UserError as error:
                    assert "\n" not in str(error), (file, content)
        (path / file).unlink() if before is None else (path / file).write_text(before)


def prepared(path, kind):
    """All of a tower but its weights."""
    family, fields = find(json.loads((path / "config.json").read_text()), "x", kind, path)
    return family.prepare(path, family.parse(fields), {})
