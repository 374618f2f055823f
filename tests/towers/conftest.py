"""Small random text towers from transformers, saved as a user would have them on disk."""

import json
import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import safetensors.numpy
import tokenizers
import torch
import transformers

from ape_jax import towers
from ape_jax.towers.family import FAMILIES
from ape_jax.towers.files import names

VOCAB_SIZE = 60


def _randomize(model, seed=0):
    """Every parameter random: a fresh model's zero biases and unit scales would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        # Others are computed, such as RoFormer's sines.
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
            if parameter.ndim == 1:
                parameter.add_(0.5)
    return model.eval()


def _write_tokenizer(path, *, before="[CLS]", after="[SEP]", special=(2, 3)):
    names = ["[PAD]", "[UNK]", before, after, *(f"w{i}" for i in range(VOCAB_SIZE - 4))]
    vocab = {name: index for index, name in enumerate(names)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{before} $A {after}", special_tokens=list(zip((before, after), special))
    )
    tokenizer.save(str(path / "tokenizer.json"))
    # For transformers: the tokenizer is what is in that file, and not one of the model's class.
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))


def _save(model, path):
    model.save_pretrained(path)
    _write_tokenizer(path)
    if model.config.model_type == "qwen2":  # Whatever the files say, transformers takes its class.
        words = ["<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz0123456789Ġ"]
        vocab = {word: place for place, word in enumerate(words)}
        transformers.Qwen2Tokenizer(vocab=vocab, merges=[]).save_pretrained(path)
    return path


def _batch(pad_id=0, lengths=(12, 5, 1, 9), eos_id=None, seed=0):
    rng = np.random.default_rng(seed)
    length = max(lengths)
    ids = rng.integers(5, VOCAB_SIZE - 1, (len(lengths), length)).astype(np.int32)
    mask = np.arange(length)[None] < np.array(lengths)[:, None]
    if eos_id is not None:
        ids[np.arange(len(lengths)), np.array(lengths) - 1] = eos_id
    return {"ids": np.where(mask, ids, pad_id).astype(np.int32), "mask": mask}


def _reference(model, batch):
    with torch.inference_mode():
        out = model(
            input_ids=torch.tensor(batch["ids"]).long(),
            attention_mask=torch.tensor(batch["mask"]).long(),
            output_hidden_states=True,
        )
    return SimpleNamespace(
        tokens=out.last_hidden_state.numpy(),
        hidden=[h.numpy() for h in out.hidden_states],
        pooled=None if out.get("pooler_output") is None else out["pooler_output"].numpy(),
    )


def _assert_close(got, want, tolerance=2e-5):
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    assert np.isfinite(got).all()
    assert np.abs(got - want).max() <= tolerance * np.abs(want).max()


def _assert_parity(path, model, batch):
    """The output and an inner layer of the loaded tower against transformers', at real tokens."""
    tower = towers.load(str(path), kind="text", dtype="float32")
    want, mask = _reference(model, batch), batch["mask"]
    out = tower(batch)
    np.testing.assert_array_equal(out.mask, mask)
    assert np.isfinite(np.asarray(out.tokens)).all()
    _assert_close(np.asarray(out.tokens)[mask], want.tokens[mask])
    for layer in (0, 1):
        inner = tower(batch, layer=layer)
        _assert_close(np.asarray(inner.tokens)[mask], want.hidden[layer][mask])
    return tower, want


def _both_sides(pad_id=0, lengths=(12, 5, 1, 9)):
    """A batch padded on the right, and the same texts padded on the left."""
    right = _batch(pad_id, lengths)
    rolls = right["ids"].shape[1] - right["mask"].sum(1)
    left = {
        name: np.stack([np.roll(row, roll) for row, roll in zip(array, rolls)])
        for name, array in right.items()
    }
    return right, left


def _assert_every_token(tower, model, batches, *, change=lambda tokens: tokens):
    """Outputs, hidden states 0 and 1, and the rest from there, at real tokens of several batches.

    What takes the tower's tokens to those of the model's class is `change`. One program: to compile
    is what these tests cost. Returns the outputs.
    """

    def every(params, batch):
        final, *inner = (tower.tower.apply(params, batch, layer=layer) for layer in (-1, 0, 1))
        rest = tower.tower.resume(params, inner[1].tokens, inner[1].mask, start=1)
        return final, rest, inner

    run, outs = jax.jit(every).lower(tower.params, batches[0]).compile(), []
    for batch in batches:
        want, mask = _reference(model, batch), batch["mask"]
        final, rest, inner = run(tower.params, batch)
        outs.append(final)
        assert np.isfinite(np.asarray(final.tokens)).all()
        for out in (final, rest):
            _assert_close(change(np.asarray(out.tokens))[mask], want.tokens[mask])
        for out, hidden in zip(inner, want.hidden):
            _assert_close(np.asarray(out.tokens)[mask], hidden[mask])
    return outs


def _assert_names_lead_back(path, unused):
    """The family's table turns the tower's parameters into the file again, `unused` left out."""
    tower = towers.load(str(path), kind="text")
    family = FAMILIES[tower.config.family]
    got = names.to_file(family.tables[0], tower.params, heads=tower.config.heads)
    want = safetensors.numpy.load_file(path / "model.safetensors")
    assert got.keys() == want.keys() - unused
    for name, array in got.items():
        np.testing.assert_array_equal(array, want[name])


@pytest.fixture(scope="session")
def text_reference():
    """Helpers that build, save and compare small text towers."""
    return SimpleNamespace(
        vocab_size=VOCAB_SIZE,
        randomize=_randomize,
        save=_save,
        write_tokenizer=_write_tokenizer,
        batch=_batch,
        both_sides=_both_sides,
        run=_reference,
        assert_close=_assert_close,
        assert_every_token=_assert_every_token,
        assert_parity=_assert_parity,
        assert_names_lead_back=_assert_names_lead_back,
    )


@pytest.fixture(scope="session")
def timm_folder():
    """Where timm and torchvision lie, apart: transformers resizes with torchvision where it is."""
    places = [os.environ.get("APE_JAX_TIMM", ""), str(pathlib.Path(sys.prefix) / "judges")]
    folder = next((p for p in places if p and (pathlib.Path(p) / "timm").is_dir()), None)
    if folder is None:
        pytest.skip("timm is not installed; launch/test.sh installs it in .venv/judges")
    return pathlib.Path(folder)


@pytest.fixture(scope="session")
def apart(timm_folder):
    """Runs a script of the folder `apart` where timm, torchvision and open_clip can be imported."""

    def run(script, *args):
        path = pathlib.Path(__file__).parent / "apart" / script
        places = [str(timm_folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
        command = [sys.executable, str(path), *map(str, args)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]

    return run
