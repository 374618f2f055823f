"""Real text towers (demo:minilm, demo:me5_small) against transformers on the same directory."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from ape_jax import towers
from ape_jax.demo.towers import assets
from ape_jax.towers.bound import BoundTower

CAPTIONS = [
    "a cat",
    "Two dogs are running on the beach while a man in a red jacket throws a ball to them.",
    "smiling face with heart-eyes",
    "Ein kleiner Hund läuft über die Straße, an einem Café vorbei.",
    "дымящаяся чашка кофе на столе",
    "一只猫坐在窗台上",
    "  spaces \t and a tab, and more  ",
    "emoji 🐱👍🏽 and 👩‍🔬",
    "a " * 700,
    "",
]
PREFIXES = {"minilm": "", "me5_small": "query: "}


@pytest.fixture(scope="module", params=PREFIXES)
def real(request):
    """(tower in float32, transformers' model, its tokenizer) from one directory."""
    path = assets.tower_dir(request.param)
    tower = towers.load(f"demo:{request.param}", kind="text", dtype="float32")
    model = transformers.AutoModel.from_pretrained(path, attn_implementation="eager").eval()
    return tower, model, transformers.AutoTokenizer.from_pretrained(path)


def test_the_prefix_is_the_one_the_tower_was_trained_with(real):
    tower, _, _ = real
    assert tower.prepare.prefix == PREFIXES[tower.tower.spec.removeprefix("demo:")]


def test_ids_equal_auto_tokenizer(real):
    tower, _, auto = real
    texts = [tower.prepare.prefix + text for text in CAPTIONS]
    want = auto(texts, truncation=True, max_length=tower.prepare.max_length)["input_ids"]
    batch = tower.prepare(CAPTIONS)
    assert [ids[mask].tolist() for ids, mask in zip(batch["ids"], batch["mask"])] == want


def test_tokens_and_sentence_embeddings_equal_transformers(real):
    tower, model, auto = real
    texts = [text for text in CAPTIONS if len(text) < 200]
    batch = tower.prepare(texts)
    with torch.inference_mode():
        inputs = auto([tower.prepare.prefix + t for t in texts], padding=True, return_tensors="pt")
        want = model(**inputs).last_hidden_state.numpy()
    mask = inputs["attention_mask"].numpy().astype(bool)
    out = tower(batch)
    got = np.asarray(out.tokens)[:, : mask.shape[1]]
    assert np.abs(got - want)[mask].max() <= 2e-5 * np.abs(want[mask]).max()
    mean = (want * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    assert tower.config.pooling == "mean"
    assert np.abs(out.pooled - mean).max() <= 2e-5 * np.abs(mean).max()


def test_bfloat16_keeps_the_direction_of_sentence_embeddings(real):
    tower, _, _ = real
    batch = tower.prepare([text for text in CAPTIONS if len(text) < 200])
    exact = np.asarray(tower(batch).pooled)
    # The same parameters; loading 470 MB again would test nothing more.
    narrow = dataclasses.replace(tower.tower, module=tower.tower.module.clone(dtype=jnp.bfloat16))
    rounded = np.asarray(BoundTower(narrow, tower.params)(batch).pooled)
    cosine = (exact * rounded).sum(-1) / np.linalg.norm(exact, axis=-1)
    assert (cosine / np.linalg.norm(rounded, axis=-1)).min() > 0.999
