"""The config's heads, from pairs on disk to embeddings: cached, in the step, and for new texts."""

import json

import numpy as np
import pytest

import ape_jax
from ape_jax import config as config_lib
from ape_jax.errors import UserError
from ape_jax.runs import restore
from ape_jax.training import loop


def trained(config, workdir, **changes):
    """The losses of a run, and its aligner."""
    flat = {key.replace("__", "."): value for key, value in changes.items()}
    flat = {**config_lib.flatten(config), "train.log_every": 1, "optim.lr": 3e-3, **flat}
    loop.train_and_evaluate(config_lib.resolve(config_lib.unflatten(flat)), workdir)
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    seen = [line["train/loss"] for line in lines if "train/loss" in line]
    return np.array(seen), ape_jax.load(workdir)


@pytest.fixture
def config(tiny_config):
    tiny_config.cache.dtype, tiny_config.data.eval = "float32", {}
    tiny_config.text.head.depth, tiny_config.text.head.width = 4, 0
    return tiny_config


@pytest.mark.parametrize(
    "name", ["linear+token_mlp+lookup", pytest.param("transformer", marks=pytest.mark.slow)]
)
def test_features_on_the_device_on_the_host_and_in_the_step_train_alike(config, name, tmp_path):
    losses, texts = {}, {}
    for way, changes in {
        "device": {"cache__place": "device"},
        "host": {"cache__place": "host"},
        "in the step": {"cache__text": False},
    }.items():
        head = {"text__head__name": name, "text__head__depth": 1 + ("+" in name)}
        losses[way], aligner = trained(config, tmp_path / way, **head, **changes)
        texts[way] = aligner.encode_text(["a red square", "the picture of a blue bar"])
    np.testing.assert_array_equal(losses["device"], losses["host"])
    np.testing.assert_allclose(losses["in the step"], losses["host"], rtol=1e-4)
    np.testing.assert_allclose(texts["device"], texts["in the step"], atol=1e-3)
    assert losses["host"][-1] < losses["host"][0]


@pytest.mark.parametrize(
    "name",
    [
        "pooled_mlp",
        pytest.param("residual_mlp", marks=pytest.mark.slow),
        pytest.param("star_mlp", marks=pytest.mark.slow),
    ],
)
def test_both_sides_take_heads_on_pooled_features(config, name, tmp_path):
    keys = {"text.head.name": name, "image.head.name": name, "embed": 24}
    if name == "pooled_mlp":  # Its statistics are averaged, kept and read again.
        keys["text.head.norm"] = "batch"
    changes = {key.replace(".", "__"): value for key, value in keys.items()}
    losses, aligner = trained(config, tmp_path / "run", latent__mixup=1.0, **changes)
    assert np.isfinite(losses).all() and losses[-2:].mean() < losses[:2].mean()
    assert aligner.encode_text(["a red square"]).shape == (1, 24)


@pytest.mark.parametrize(
    "head", [pytest.param("token_pool_mlp", marks=pytest.mark.slow), "attention_pool"]
)
def test_image_tokens_train_alike_from_the_cache_and_in_the_step(config, head, tmp_path):
    keys = {"image.pooling": "none", "image.standardize": False, "embed": 24}
    keys |= {f"{side}.head.name": head for side in ("image", "text")}
    keys |= {"text.head.heads": 4} if head == "attention_pool" else {}
    changes = {key.replace(".", "__"): value for key, value in keys.items()}
    cached, aligner = trained(config, tmp_path / "cached", **changes)
    fresh, _ = trained(config, tmp_path / "fresh", cache__views=0, **changes)
    np.testing.assert_allclose(cached, fresh, rtol=1e-4)
    assert cached[-2:].mean() < cached[:2].mean()
    image = np.zeros((8, 8, 3), np.uint8)
    assert aligner.encode_image([image]).shape == (1, 24)


def test_attention_heads_that_do_not_divide_the_width_are_named(config, tmp_path):
    with pytest.raises(UserError, match=r"config\.text\.head\.heads: 7 does not divide"):
        trained(config, tmp_path, text__head__name="attention_pool", text__head__heads=7)


def attention(workdir):
    return restore.restore(workdir).trainable["text_head"]["part_attention_pool"]["attention"]


def test_a_part_of_a_sum_that_attends_starts_at_zero(config, tmp_path):
    changes = {"text__head__name": "linear+attention_pool", "optim__lr": 0.0, "train__steps": 2}
    trained(config, tmp_path / "sum", **changes)
    text = attention(tmp_path / "sum")
    assert not np.asarray(text["projection"]["kernel"]).any() and np.asarray(text["queries"]).any()
    changes = {"text__head__name": "linear+attention_pool", "train__steps": 20}
    losses, _ = trained(config, tmp_path / "trained", **changes)
    text = attention(tmp_path / "trained")
    assert np.asarray(text["projection"]["kernel"]).any() and losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image.pooling": "none"}, "go together"),
        ({"image.head.name": "token_pool_mlp", "embed": 24}, "go together"),
        (
            {"image.pooling": "none", "image.head.name": "token_pool_mlp", "method": "cca"},
            "is trained",
        ),
    ],
)
def test_image_tokens_and_their_head_go_together(config, changes, words):
    flat = {**config_lib.flatten(config), **changes}
    with pytest.raises(UserError, match=words):
        config_lib.resolve(config_lib.unflatten(flat))
