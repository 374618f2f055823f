"""Runs through ONNX Runtime, against JAX: one process converts them, another encodes with them.

Both are the export's own scripts; the one that encodes cannot import torch.
"""

import json
import subprocess

import numpy as np
import onnx
import pytest

from ape_jax import UserError
from ape_jax.exporters import subprocesses, to_onnx, to_torch

BATCHES = [1, 2, 64]  # Rows that are encoded together; three are traced.
TUNED = {
    "image.standardize": False,
    "image.head.name": "linear",
    "text.head.name": "linear",
    "embed": 24,
    "text.pooling": "cls",
}
CASES = {
    "token MLP and adapters": (
        {"image.standardize": False, "image.tune": "adapter", "image.head.name": "linear"}
        | {"embed": 24, "text.head.depth": 3, "text.head.width": 48}
        | {"loss.name": "sigmoid", "loss.bias": -3.0},
        {"image": "clip", "text": "clip_text"},
    ),
}
MORE = {
    "joined layers": (
        {"text.layer": (1, -1), "image.layer": (-1, 1), "image.pooling": "mean", "embed": 24}
        | {"image.head.name": "linear", "text.head.name": "linear+transformer"}
        | {"text.head.depth": 1},
        {},
    ),
    "ape": ({"text.head.depth": 3, "text.head.width": 48}, {}),
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
    "last token": (
        {**TUNED, "image.tune": "adapter", "text.tune": "adapter", "text.pooling": "last"},
        {"image": "clip", "text": "clip_text"},
    ),
    "transformer": (
        {"text.head.name": "transformer", "text.head.depth": 2, "image.head.name": "linear"}
        | {"embed": 24, "image.param_dtype": "int8"},
        {},
    ),
    "sum and SigLIP": (
        {"text.head.name": "linear+token_pool_mlp+lookup", "image.size": 40},
        {"image": "siglip"},
    ),
    "attention": (
        {"image.standardize": False, "image.pooling": "none", "embed": 24, "text.head.heads": 4}
        | {"image.head.name": "attention_pool", "text.head.name": "attention_pool"},
        {},
    ),
    "roberta": (
        {**TUNED, "image.tune": "lora", "text.tune": "append+adapter"},
        {"image": "vit", "text": "roberta"},
    ),
    "mpnet": (
        {**TUNED, "image.tune": "append", "text.tune": "layernorm", "text.pooling": "mean"},
        {"image": "registers", "text": "mpnet"},
    ),
}


def through_onnx(root, made, inputs, cases):
    """The runs, what ONNX Runtime gives for them, and the folder of the directories."""
    exports = {}
    for i, (settings, towers) in enumerate(cases.values()):
        made_by_torch, out = root / f"torch_{i}", root / f"onnx_{i}"
        made_by_torch.mkdir()
        out.mkdir()
        run = made(settings, **towers)
        to_torch.write(run, made_by_torch)
        exports[made_by_torch] = run, out
    to_onnx.convert(exports)
    job = {
        "directories": [str(out) for _, out in exports.values()],
        "images": inputs.images,
        "texts": inputs.texts,
        "batches": BATCHES,
        "out": str(root / "out.npz"),
    }
    subprocesses.run("encode_onnx.py", job, root, "cannot be run")
    with np.load(root / "out.npz") as out:
        found = dict(out)
    return {
        name: (*export, i, found) for i, (name, export) in enumerate(zip(cases, exports.values()))
    }


@pytest.fixture(scope="module")
def exported(made, inputs, tmp_path_factory):
    return through_onnx(tmp_path_factory.mktemp("exported"), made, inputs, CASES)


@pytest.fixture(scope="module")
def exported_more(made, inputs, tmp_path_factory):
    return through_onnx(tmp_path_factory.mktemp("more"), made, inputs, MORE)


def assert_same(export, inputs):
    run, _, i, out = export
    for kind, ours in (
        ("image", run.encode_images(inputs.images)),
        ("text", run.encode_texts(inputs.texts)),
    ):
        for rows in BATCHES:
            theirs = out[f"{kind}_{i}_{rows}"]
            assert ours.shape == theirs.shape and theirs.dtype == np.float32
            assert np.abs(ours - theirs).max() <= 1e-4
            # They would also be equal if all inputs gave one embedding.
            assert (theirs @ theirs.T).min() < 0.999


@pytest.mark.parametrize("name", CASES)
def test_onnx_gives_the_embeddings_of_jax_in_every_batch_and_length(exported, inputs, name):
    assert_same(exported[name], inputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_onnx_gives_the_embeddings_of_jax_for_more_heads_and_families(exported_more, inputs, name):
    assert_same(exported_more[name], inputs)


def test_graphs_are_valid_and_leave_batch_and_length_free(exported):
    _, out, *_ = exported["token MLP and adapters"]
    expected = {
        "image": {"pixel_values": (1, ["batch", 3, 32, 32]), "image_embeds": (1, ["batch", 24])},
        "text": {
            "input_ids": (7, ["batch", "length"]),
            "attention_mask": (7, ["batch", "length"]),
            "text_embeds": (1, ["batch", 24]),
        },
    }
    for name, entries in expected.items():
        onnx.checker.check_model(out / f"{name}.onnx", full_check=True)
        graph = onnx.load(out / f"{name}.onnx").graph
        found = {}
        for entry in (*graph.input, *graph.output):
            tensor = entry.type.tensor_type
            shape = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
            found[entry.name] = tensor.elem_type, shape
        assert found == entries


def test_config_has_the_scale_and_the_bias(exported):
    run, out, *_ = exported["token MLP and adapters"]
    config, loss = json.loads((out / "config.json").read_text()), run.trainable["loss"]
    assert config["logit_scale"] == pytest.approx(np.exp(float(loss["log_scale"])))
    assert config["logit_bias"] == float(loss["bias"])


def test_directory_holds_no_torch_and_a_card(exported):
    _, out, *_ = exported["token MLP and adapters"]
    assert {path.name for path in out.iterdir()} == {
        "README.md",
        "checksums_ape.py",
        "config.json",
        "essential_ape.py",
        "image.onnx",
        "preprocessor_config.json",
        "processing_ape.py",
        "processor_config.json",
        "text.onnx",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert "library_name: onnx" in (out / "README.md").read_text()


def test_graphs_hold_no_paths_of_the_machine(exported):
    _, out, *_ = exported["token MLP and adapters"]
    for name in ("image.onnx", "text.onnx"):
        content = (out / name).read_bytes()
        assert b"site-packages" not in content and b"modeling_ape.py" not in content


def test_asif_is_refused(made, tmp_path):
    with pytest.raises(UserError, match="asif"):
        to_onnx.write(made({"method": "asif"}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_script_that_fails_is_one_sentence(tmp_path, monkeypatch):
    said = (
        'noise\nTraceback (most recent call last):\n  File "x"\nRuntimeError: bad index\n Fix it.\n'
    )
    failed = subprocess.CompletedProcess([], returncode=1, stdout="", stderr=said)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UserError, match=r"^cannot be run: RuntimeError: bad index$"):
        subprocesses.run("encode_onnx.py", {}, tmp_path, "cannot be run")
