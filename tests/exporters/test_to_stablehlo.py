"""Runs through the programs of jax.export, in a process that has jax and nothing of ours."""

import json

import numpy as np
import pytest
from jax import export
from safetensors.numpy import load_file

from ape_jax.align.tuning.selection import flatten
from ape_jax.exporters import subprocesses, to_stablehlo

BATCHES = [3, 64]  # Rows that are encoded together.
LINEAR = {
    "image.standardize": False,
    "image.head.name": "linear",
    "text.head.name": "linear",
    "embed": 24,
    "text.pooling": "cls",
}
CASES = {
    "ape": (
        {"text.head.depth": 3, "text.head.width": 48, "loss.name": "sigmoid", "loss.bias": -3.0},
        {"text": "mpnet"},
    ),
}
MORE = {
    "joined layers": (
        {"text.layer": (1, -1), "image.layer": (-1, 1), "image.pooling": "mean", "embed": 24}
        | {"image.head.name": "linear", "text.head.name": "linear+transformer"}
        | {"text.head.depth": 1},
        {},
    ),
    "fixed weights": (
        {"image.head.name": "linear", "text.head.name": "linear+token_mlp", "embed": 24}
        | {"start.method": "cca", "start.weights": "kept"},
        {},
    ),
    "means of languages": (
        {"image.head.name": "linear", "text.head.name": "linear+token_mlp", "embed": 24}
        | {"data.language": "tongue"},
        {},
    ),
    "cut to a prefix": ({"text.head.depth": 2, "eval.dim": 9}, {}),
    "adapters": (
        {**LINEAR, "image.tune": "adapter", "text.tune": "adapter", "text.pooling": "last"},
        {"image": "clip", "text": "clip_text"},
    ),
    "top and append": (
        {**LINEAR, "image.tune": "top:1", "text.tune": "append+layernorm"},
        {"image": "registers"},
    ),
    "lora": (
        {**LINEAR, "image.tune": "lora", "text.tune": "lora"},
        {"image": "vit", "text": "roberta"},
    ),
    "transformer": (
        {"text.head.name": "transformer", "text.head.depth": 2, "image.head.name": "linear"}
        | {"embed": 24, "image.param_dtype": "int8", "text.param_dtype": "bfloat16"},
        {},
    ),
    "sum and SigLIP": (
        {"text.head.name": "linear+token_pool_mlp+lookup", "image.size": 40},
        {"image": "siglip"},
    ),
    "tokens": (
        {"image.standardize": False, "image.pooling": "none", "embed": 24}
        | {"image.head.name": "token_pool_mlp", "text.head.name": "token_pool_mlp"},
        {"image": "deit", "text": "distilbert"},
    ),
    "attention": (
        {"image.standardize": False, "image.pooling": "none", "embed": 24, "text.head.heads": 4}
        | {"image.head.name": "attention_pool", "text.head.name": "attention_pool"},
        {},
    ),
    "asif": (
        {"method": "asif", "text.param_dtype": "int8"},
        {"solved": {"width": 40, "neighbours": 9, "power": 2.0}},
    ),
    "batch norm": ({**LINEAR, "text.head.name": "pooled_mlp", "text.head.norm": "batch"}, {}),
    "full": ({**LINEAR, "image.tune": "full", "text.tune": "full"}, {}),
}


def through_jax(root, made, inputs, cases):
    """The runs, and what their programs give."""
    runs = {}
    for name, (settings, towers) in cases.items():
        runs[name] = made(settings, **towers)
        (root / name).mkdir()
        to_stablehlo.write(runs[name], root / name)
    job = {
        "directories": [str(root / name) for name in cases],
        "images": inputs.images,
        "texts": inputs.texts,
        "batches": BATCHES,
        "out": str(root / "out.npz"),
    }
    with pytest.MonkeyPatch.context() as patch:  # Compiling takes longer than running once.
        quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
        patch.setenv("XLA_FLAGS", quick)
        subprocesses.run("encode_stablehlo.py", job, root, "cannot be run")
    with np.load(root / "out.npz") as out:
        return runs, dict(out), root


@pytest.fixture(scope="module")
def exported(made, inputs, tmp_path_factory):
    return through_jax(tmp_path_factory.mktemp("exported"), made, inputs, CASES)


@pytest.fixture(scope="module")
def exported_more(made, inputs, tmp_path_factory):
    return through_jax(tmp_path_factory.mktemp("more"), made, inputs, MORE)


def assert_same(exported, name, inputs):
    runs, out, _ = exported
    place = list(runs).index(name)
    for kind, ours in (
        ("image", runs[name].encode_images(inputs.images)),
        ("text", runs[name].encode_texts(inputs.texts)),
    ):
        for rows in BATCHES:
            theirs = out[f"{kind}_{place}_{rows}"]
            assert ours.shape == theirs.shape and theirs.dtype == np.float32
            assert np.abs(ours - theirs).max() <= 1e-5
            # They would also be equal if all inputs gave one embedding.
            assert (theirs @ theirs.T).min() < 0.999


@pytest.mark.parametrize("name", CASES)
def test_programs_give_the_embeddings_in_every_batch_and_length(exported, inputs, name):
    assert_same(exported, name, inputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_programs_give_the_embeddings_for_more_heads_and_families(exported_more, inputs, name):
    assert_same(exported_more, name, inputs)


def test_programs_are_for_all_platforms_and_leave_batch_and_length_free(exported):
    _, _, root = exported
    for name, shapes in {
        "image": ["(batch, 3, 32, 32)"],
        "text": ["(batch, length)"] * 2,
    }.items():
        program = export.deserialize((root / f"ape/{name}.stablehlo").read_bytes())
        assert program.platforms == ("cpu", "cuda", "tpu")
        leaves = [str(leaf.shape) for leaf in program.in_avals]
        assert leaves[-len(shapes) :] == shapes
        assert [str(out.shape) for out in program.out_avals] == ["(batch, 32)"]


def test_texts_longer_than_the_tower_takes_are_refused_by_the_program(exported):
    _, _, root = exported
    program = export.deserialize((root / "ape/text.stablehlo").read_bytes())
    weights = load_file(root / "ape/text.safetensors")
    with pytest.raises(ValueError, match="shapes"):
        program.call(weights, *(np.ones((1, 17), np.int32),) * 2)


def test_weights_are_arguments_under_their_names(exported):
    runs, _, root = exported
    weights = load_file(root / "ape/text.safetensors")
    head = flatten(runs["ape"].trainable["text_head"])
    for name, leaf in head.items():
        np.testing.assert_array_equal(weights[f"trainable/text_head/{name}"], leaf)
    assert "frozen/text_tower/embed/token" in weights
    assert (root / "ape/text.stablehlo").stat().st_size < 100_000


def test_directory_is_whole_and_holds_no_paths_of_the_machine(exported):
    runs, _, root = exported
    files = {path.name: path for path in (root / "ape").iterdir()}
    assert set(files) == {
        "README.md",
        "checksums_ape.py",
        "config.json",
        "essential_ape.py",
        "image.safetensors",
        "image.stablehlo",
        "preprocessor_config.json",
        "processing_ape.py",
        "processor_config.json",
        "text.safetensors",
        "text.stablehlo",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    for name in ("image.stablehlo", "text.stablehlo"):
        content = files[name].read_bytes()
        assert b"site-packages" not in content and b"ape_jax/" not in content
    config, loss = json.loads(files["config.json"].read_text()), runs["ape"].trainable["loss"]
    assert config["logit_scale"] == pytest.approx(np.exp(float(loss["log_scale"])))
    assert config["logit_bias"] == float(loss["bias"])
