"""Runs on towers that other libraries run in torch: trained, solved, resumed, loaded, exported."""

import json
import shutil

import jax
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules

import ape_jax
from ape_jax import config as config_lib
from ape_jax.commands import evaluate as evaluate_command
from ape_jax.commands import index as index_command
from ape_jax.data.specs import open_pairs
from ape_jax.errors import UserError
from ape_jax.features.frontier import outside_tower
from ape_jax.runs import build
from ape_jax.runs.restore import restore
from ape_jax.training import extraction, loop


@pytest.fixture(scope="module")
def new_config(new_tiny_config, tiny):
    """`new_config()`: a head on the tiny world's towers, which transformers runs."""

    def make():
        config = new_tiny_config()
        config.image.tower = f"torch:hf:{tiny / 'image'}"
        config.text.tower = f"torch:hf:{tiny / 'text'}"
        config.text.max_length = 16
        return config

    return make


@pytest.fixture(scope="module")
def run(new_config, tmp_path_factory):
    """The config, work directory and summary of a run, which nobody changes."""
    config, path = new_config(), tmp_path_factory.mktemp("torch_run")
    return config, path, loop.train_and_evaluate(config_lib.resolve(config), path)


@pytest.fixture(scope="module")
def sentences(tiny, tmp_path_factory):
    """The tiny text tower as a SentenceTransformer with CLS pooling and a Dense to 24 numbers."""
    path = tmp_path_factory.mktemp("sentences")
    text = shutil.copytree(tiny / "text", path / "text")
    file = text / "tokenizer_config.json"
    settings = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**settings, "pad_token": "[PAD]"}))
    path, transformer = path / "model", modules.Transformer(str(text), max_seq_length=16)
    pooling, dense = modules.Pooling(32, pooling_mode="cls"), modules.Dense(32, 24)
    SentenceTransformer(modules=[transformer, pooling, dense], device="cpu").save(str(path))
    return path


def parameters(path):
    return jax.tree.map(np.asarray, restore(path).trainable)


def test_a_head_trains_as_on_the_same_towers_in_jax(run, new_tiny_config, tmp_path):
    _, path, summary = run
    ours = loop.train_and_evaluate(config_lib.resolve(new_tiny_config()), tmp_path)
    assert summary["parameters_trained"] == ours["parameters_trained"]
    assert summary["parameters_frozen"] >= ours["parameters_frozen"]  # A mask token beside them.
    compared = parameters(path), parameters(tmp_path)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), *compared)


def test_killed_and_resumed_it_ends_with_the_same_bits(run, tmp_path, blocks_through):
    def until(blocks):
        for span, block in blocks:
            if span.first + span.stop >= 6:
                raise KeyboardInterrupt
            yield span, block

    config, forget = config_lib.resolve(run[0]), blocks_through(until)
    with pytest.raises(KeyboardInterrupt):
        loop.train_and_evaluate(config, tmp_path)
    forget()
    loop.train_and_evaluate(config, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, parameters(run[1]), parameters(tmp_path))


def test_a_loaded_run_encodes_classifies_and_evaluates(run, tiny):
    _, path, summary = run
    model = ape_jax.load(path)
    images = [pair.image.content for pair in open_pairs(tiny / "pairs.jsonl")]
    assert model.classify(images[:3], ["red square", "blue bar"]).shape == (3, 2)
    assert len(model.retrieve(["a red square"], images[:5], k=2)[0]) == 2
    figures = model.evaluate(str(tiny / "pairs.jsonl"))
    assert figures["i2t_r1"] == pytest.approx(summary["eval/train/i2t_r1"])
    found, _ = evaluate_command.retrieval(str(path), "")
    assert found["eval/train/t2i_r1"] == pytest.approx(summary["eval/train/t2i_r1"])


def test_an_index_of_it_answers(run, tiny, tmp_path):
    asked = index_command.Questions(texts=["a red square"], images=[], k=2, exact=True)
    place = str(tmp_path / "index")
    found, table = index_command.index(str(run[1]), str(tiny), place, asked)
    assert found["encoded"] == 24 and ".png" in table


def test_a_closed_form_is_solved_on_what_the_library_pools(new_config, sentences, tmp_path):
    config = new_config()
    config.text.tower, config.text.pooling = f"torch:st:{sentences}", "own"
    config.text.max_length, config.method = 0, "ridge"
    summary = loop.train_and_evaluate(config_lib.resolve(config), tmp_path)
    assert summary["eval/train/t2i_r10"] > 0.3
    texts = ["a red square", "the picture of a blue bar"]
    rows = outside_tower(restore(tmp_path).model.text, 8).texts(texts)
    want = SentenceTransformer(str(sentences), device="cpu").encode(texts)
    np.testing.assert_allclose(np.concatenate(rows), want, rtol=1e-5, atol=1e-6)
    z = ape_jax.load(tmp_path).encode_text(texts)
    assert z.shape[0] == 2 and np.allclose(np.linalg.norm(z, axis=1), 1)


def test_extract_fills_what_training_reads_and_another_pooling_is_encoded_anew(
    new_config, tmp_path
):
    config = new_config()
    config.cache.dir = str(tmp_path / "features")
    first, again = (
        extraction.extract(config_lib.resolve(config), tmp_path / "out") for _ in range(2)
    )
    assert all(cache["encoded"] > 0 for cache in first["caches"])
    assert not any(cache["encoded"] for cache in again["caches"])
    config.image.pooling = "mean"
    other = extraction.extract(config_lib.resolve(config), tmp_path / "out")
    assert other["caches"][0]["encoded"] > 0
    record = next((tmp_path / "features").glob("images-*/*.json")).read_text()
    assert "transformers version" in record and "torch version" in record


def test_views_are_made_before_the_library_prepares_them(new_config, tmp_path):
    config = new_config()
    config.cache.views, config.augment.crop, config.augment.flip = 2, (0.3, 1.0), True
    config.train.steps, config.cache.dir = 2, "none"
    summary = loop.train_and_evaluate(config_lib.resolve(config), tmp_path)
    assert np.isfinite(summary["eval/train/t2i_r1"])


def test_an_export_for_ape_jax_brings_the_towers(run, tmp_path):
    model, texts = ape_jax.load(run[1]), ["a red square"]
    model.export(tmp_path / "out", format="jax")
    assert (tmp_path / "out/towers/image/model.safetensors").is_file()
    found, _ = evaluate_command.conservation(str(tmp_path / "out"), "")
    assert found["eval/train/image_cka"] == pytest.approx(1.0)
    moved = ape_jax.load(tmp_path / "out")
    np.testing.assert_array_equal(moved.encode_text(texts), model.encode_text(texts))
    with pytest.raises(UserError, match=r"--format: 'torch:hf:.* a head alone is no model"):
        model.export(tmp_path / "torch", format="torch")


def test_heads_on_tokens_and_on_vectors_share_the_tokens_which_is_said(
    new_config, sentences, capsys
):
    config = new_config()
    config.text.tower, config.text.pooling = f"torch:st:{sentences}", "own"
    config.text.max_length, config.text.head.name = 0, "linear+token_mlp"
    read = build.load_towers(config_lib.resolve(config))
    assert read.text.config.pooling == "none"
    assert "reads tokens, so what this tower puts behind its pooling" in capsys.readouterr().err
