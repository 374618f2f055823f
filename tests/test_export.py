"""The export command, end to end on a trained run, and what it refuses."""

import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors
from safetensors.numpy import load_file, save_file

import ape_jax
from ape_jax import config as config_lib
from ape_jax import export
from ape_jax.exporters import files, to_onnx, verify
from ape_jax.terminal import command
from ape_jax.training import loop

VECTORS = {
    "image.tower": "features:32",
    "data.pairs": "features:pairs.parquet",
    "data.eval": {},
}


@pytest.fixture(scope="module")
def world(tiny, tmp_path_factory):
    """A finished work directory on towers of its own, which tests may copy and break."""
    root = tmp_path_factory.mktemp("world")
    for name in ("image", "text"):
        shutil.copytree(tiny / name, root / name)
    config = config_lib.default()
    config.image.tower, config.text.tower = str(root / "image"), str(root / "text")
    config.data.pairs = str(tiny / "pairs.jsonl")
    config.text.head.depth, config.text.head.width = 2, 32
    config.train.batch, config.train.steps = 16, 2
    config.cache.dir = "none"
    loop.train_and_evaluate(config_lib.resolve(config), root / "run")
    return root


@pytest.fixture
def text_tower(world, tmp_path):
    """The directory of the run's text tower, which is put back afterwards."""
    shutil.copytree(world / "text", tmp_path / "kept")
    yield world / "text"
    shutil.rmtree(world / "text", ignore_errors=True)
    shutil.copytree(tmp_path / "kept", world / "text")


def run(capsys, *arguments):
    """Exit code, standard output and standard error of the command."""
    with pytest.raises(SystemExit) as stop:
        command.run(export.main, ["ape_jax", "--inputs=", "--format=torch", *arguments])
    return stop.value.code or 0, *capsys.readouterr()


def tamper(weights):
    """Makes a safetensors file announce a header of exabytes."""
    content = bytearray(weights.read_bytes())
    content[:8] = (2**62).to_bytes(8, "little")
    weights.write_bytes(content)


def refused(capsys, words, out, *arguments):
    code, _, said = run(capsys, f"--out={out}", *arguments)
    assert code == 1 and words in said and said.count("\n") == 1, said
    assert not [path for path in out.parent.iterdir() if out.name in path.name]


def test_trained_run_goes_to_torch_and_proves_it(world, tmp_path, capsys):
    out = tmp_path / "new/exported"
    code, printed, said = run(capsys, f"--workdir={world / 'run'}", f"--out={out}")
    assert not code, said
    assert "8 images and" in printed and "least cosine" in printed
    assert [path.name for path in out.parent.iterdir()] == ["exported"]


def test_jax_export_is_loaded_without_the_towers_it_came_from(world, text_tower, tmp_path, capsys):
    out = tmp_path / "exported"
    arguments = [f"--workdir={world / 'run'}", f"--out={out}", "--format=jax"]
    code, printed, said = run(capsys, *arguments)
    assert not code, said
    assert "difference 0.00e+00" in printed
    shutil.rmtree(text_tower)  # Away, as on another machine.
    model = ape_jax.load(out)
    assert model.config.text.tower == str(text_tower)
    tamper(out / "towers/text/model.safetensors")
    for said in (r"model\.safetensors is damaged.*SHA256SUMS", "no whole safetensors file"):
        with pytest.raises(ape_jax.UserError, match=said) as error:
            ape_jax.load(out)
        assert "\n" not in str(error.value)
        (out / "SHA256SUMS").unlink(missing_ok=True)


def test_trained_run_goes_to_stablehlo_and_proves_it(world, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    out = tmp_path / "exported"
    arguments = [f"--workdir={world / 'run'}", f"--out={out}", "--format=stablehlo"]
    code, printed, said = run(capsys, *arguments)
    assert not code, said
    assert printed.count("least cosine") == len(verify.STABLEHLO_BATCHES)


@pytest.mark.slow
def test_trained_run_goes_to_onnx_and_proves_it(world, tmp_path, capsys):
    out = tmp_path / "exported"
    arguments = [f"--workdir={world / 'run'}", f"--out={out}", "--format=onnx"]
    code, printed, said = run(capsys, *arguments)
    assert not code, said
    assert printed.count("least cosine") == len(verify.ONNX_BATCHES)
    assert {"image.onnx", "text.onnx"} <= {path.name for path in out.iterdir()}


def test_onnx_that_is_wrong_in_one_batch_size_is_refused(world, tmp_path, capsys, monkeypatch):
    z = np.eye(4, 32, dtype=np.float32)
    monkeypatch.setattr(to_onnx, "convert", lambda exports: None)
    monkeypatch.setattr(verify, "ours", lambda trained, inputs: (z, z))
    monkeypatch.setattr(verify, "onnx", lambda *_: {1: (z, z), 5: (z, z[::-1])})
    arguments = [f"--workdir={world / 'run'}", "--format=onnx"]
    refused(capsys, "at most 5 rows at once does not give", tmp_path / "out", *arguments)


def test_result_that_differs_is_refused_and_nothing_is_left(world, tmp_path, capsys, monkeypatch):
    def wrong(directory, inputs, model_class, background=None):
        assert (directory / "model.safetensors").exists()
        return np.eye(8, 32, dtype=np.float32), np.eye(len(inputs.texts), 32, dtype=np.float32)

    monkeypatch.setattr(verify, "torchs", wrong)
    arguments = [f"--workdir={world / 'run'}"]
    refused(capsys, "does not give the run's embeddings", tmp_path / "out", *arguments)


@pytest.mark.parametrize("wrong", [1e-3, np.nan])
def test_comparison_sees_small_differences_and_no_numbers(wrong):
    z = np.eye(3, 4, dtype=np.float32)
    assert verify.compare((z, z), (z, z + 1e-6), "torch")[0] == pytest.approx(1e-6, rel=0.1)
    with pytest.raises(ape_jax.UserError, match="does not give"):
        verify.compare((z, z), (z, z + np.float32(wrong)), "torch")


def test_what_cannot_be_a_dual_encoder_is_refused(world, tmp_path, capsys):
    arguments = [f"--workdir={world / 'run'}", "--format=dual_encoder"]
    refused(capsys, "bert class", tmp_path / "out", *arguments)


@pytest.mark.slow
def test_finished_model_goes_back_out_and_proves_it(finished, tiny, tmp_path, capsys):
    out, path = tmp_path / "exported", finished("clip+bert")[1]
    arguments = [f"--workdir={path}", f"--out={out}", f"--inputs={tiny / 'pairs.jsonl'}"]
    code, printed, said = run(capsys, *arguments, "--format=dual_encoder")
    assert not code, said
    assert "least cosine" in printed
    before, after = (load_file(d / "model.safetensors") for d in (path, out))
    assert {k: v.tobytes() for k, v in before.items()} == {k: v.tobytes() for k, v in after.items()}


def test_finished_model_needs_inputs_and_another_format_than_jax(finished, tmp_path, capsys):
    arguments = [f"--workdir={finished('clip+bert')[1]}", "--format=torch"]
    capsys.readouterr()  # What transformers says where it writes the model just now.
    refused(capsys, "--inputs: a finished model brings no pairs", tmp_path / "out", *arguments)
    arguments[1] = "--format=jax"
    refused(capsys, "ape_jax.load takes as it is", tmp_path / "out", *arguments)


def test_existing_out_is_left_alone(world, tmp_path, capsys):
    (tmp_path / "kept").write_text("mine")
    code, _, said = run(capsys, f"--workdir={world / 'run'}", f"--out={tmp_path}")
    assert code == 1 and "exists" in said
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("place", ["file/out", "file/new/out"])
def test_out_under_a_file_is_one_sentence(world, tmp_path, capsys, place):
    (tmp_path / "file").write_text("mine")
    code, _, said = run(capsys, f"--workdir={world / 'run'}", f"--out={tmp_path / place}")
    assert code == 1 and "cannot write in" in said and said.count("\n") == 1


def test_out_in_a_folder_of_others_is_one_sentence(world, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    refused(capsys, "cannot write in", tmp_path / "out", f"--workdir={world / 'run'}")


@pytest.mark.parametrize("target", ["torch", "stablehlo", "jax"])
def test_disk_that_is_full_leaves_nothing(world, tmp_path, capsys, monkeypatch, target):
    def full(*_, **__):
        raise error

    text = "Error while serializing: I/O error: No space left on device (os error 28)"
    error = safetensors.SafetensorError(text)
    monkeypatch.setattr(files, "save_file", full)
    if target == "jax":
        error = OSError(errno.ENOSPC, "No space left on device")
        monkeypatch.setattr(shutil, "copyfile", full)
    arguments = [f"--workdir={world / 'run'}", f"--format={target}"]
    refused(capsys, "No space left on device", tmp_path / "out", *arguments)


def test_a_disk_that_is_full_once_weights_are_saved_is_said_of_the_export(
    world, tmp_path, capsys, monkeypatch
):
    def full(*_, **__):
        raise ValueError("write failed: No space left on device")

    monkeypatch.setattr(ocp.CheckpointManager, "save", full)
    out = tmp_path / "out"
    arguments = [f"--workdir={world / 'run'}", "--format=jax"]
    refused(capsys, f"--out: {out} cannot be written (No space left on device)", out, *arguments)


@pytest.fixture
def copied(world, tmp_path):
    """A copy of the run in a folder of its own."""
    shutil.copytree(world / "run", tmp_path / "run")
    return tmp_path / "run"


def without(*names):
    def remove(path):
        for name in names:
            target = path / name
            shutil.rmtree(target) if target.is_dir() else target.unlink()

    return remove


def cut(name):
    """As a copy that was broken off leaves it."""
    return lambda path: (path / name).write_text((path / name).read_text()[:20])


def unfinished(path):
    """As a training that was killed in its second save leaves it."""
    (path / "summary.json").unlink()
    (path / "checkpoints/4.orbax-checkpoint-tmp").mkdir()


def changed(keys):
    def change(path):
        record = path / "config.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | keys))

    return change


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shutil.rmtree, "holds no run"),
        (without("summary.json"), "come to its end"),
        (cut("summary.json"), "a damaged summary.json"),
        (cut("config.json"), "config.json is not JSON"),
        (unfinished, "come to its end"),
        (without("config.json"), "no config.json"),
        (without("checkpoints"), "holds no checkpoint"),
        (without("checkpoints/2/trainable"), "is damaged (2: trainable is missing)"),
        (changed(VECTORS), "stands for vectors"),
        (changed({"data.eval": {"x": "no-such.jsonl"}}), "no-such.jsonl"),
    ],
)
def test_run_that_is_not_whole_is_one_sentence(copied, tmp_path, capsys, damage, words):
    damage(copied)
    refused(capsys, words, tmp_path / "out", f"--workdir={copied}")


def test_no_workdir_and_no_out_are_named(world, tmp_path, capsys):
    refused(capsys, "--workdir", tmp_path / "out", "--workdir=")
    code, _, said = run(capsys, f"--workdir={world / 'run'}", "--out=")
    assert code == 1 and "--out" in said


def test_tampered_tower_is_one_sentence(world, text_tower, tmp_path, capsys):
    tamper(text_tower / "model.safetensors")
    arguments = [f"--workdir={world / 'run'}"]
    refused(capsys, "no whole safetensors file", tmp_path / "out", *arguments)


def test_other_tower_than_the_checkpoints_is_one_sentence(world, text_tower, tmp_path, capsys):
    weights = text_tower / "model.safetensors"
    tensors = load_file(weights)
    name = min(tensors)
    save_file({**tensors, name: tensors[name] + 1}, weights)
    arguments = [f"--workdir={world / 'run'}"]
    refused(capsys, "another text tower", tmp_path / "out", *arguments)


@pytest.mark.parametrize(
    ("missing", "target", "extra"),
    [
        ("torch", "torch", "ape_jax[export]"),
        ("torch", "onnx", "ape_jax[export]"),
        ("onnxscript", "onnx", "ape_jax[onnx]"),
        ("onnxruntime", "onnx", "ape_jax[onnx]"),
    ],
)
def test_missing_package_and_its_extra_are_named(
    world, tmp_path, capsys, monkeypatch, missing, target, extra
):
    monkeypatch.setitem(sys.modules, missing, None)  # As where it is not installed.
    arguments = [f"--workdir={world / 'run'}", f"--format={target}"]
    refused(capsys, f"{missing} is not installed", tmp_path / "out", *arguments)
    refused(capsys, extra, tmp_path / "out", *arguments)


# In a process of its own: other tests of this one import the templates on purpose.
_EXPORT = """
import sys
from ape_jax import export
from ape_jax.terminal import command

try:
    command.run(export.main, ["ape_jax", *sys.argv[1:]])
finally:
    print([n for n in sys.modules if n.endswith((".modeling_ape", ".processing_ape"))])
"""


def test_templates_are_never_imported_here(world, tmp_path):
    where = [f"--workdir={world / 'run'}", f"--out={tmp_path / 'out'}"]
    command_line = [sys.executable, "-c", _EXPORT, "--inputs=", "--format=torch", *where]
    ended = subprocess.run(command_line, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "out" / "modeling_ape.py").is_file()
    assert ended.stdout.splitlines()[-1] == "[]"
