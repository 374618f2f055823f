"""The variants of LilT (arXiv 2303.11866), counted in the trees of the real model."""

import functools
import math

import jax
import pytest

from ape_jax import towers
from ape_jax.align import heads
from ape_jax.align.model import Model, Side
from ape_jax.align.tuning.tuned import Tuned
from ape_jax.errors import UserError
from ape_jax.towers.tower import Tower

VIT_B16 = {"model_type": "vit", "hidden_size": 768, "num_hidden_layers": 12, "patch_size": 16}
DINOV3_S = {"model_type": "dinov3_vit", "num_register_tokens": 4}
BERT_BASE = {"model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12}


def side(config, tune, **options):
    module, config = towers.build(config, **options)
    tower = Tower(
        kind=config.kind,
        module=module,
        config=config,
        prepare=dict,
        spec="",
        digest="",
    )
    image = config.kind == "image"
    head = heads.Linear(256) if image else heads.OnPooledText(heads.Linear(256), config, "cls")
    pooling = "cls" if image else "none"
    return Side(tower=tower, head=head, tune=tune, pooling=pooling)


def counts(image_tune, text_tune):
    """(trained, all) of DeiT-B/16 at 256 px and BERT-base; nothing is allocated."""
    sides = {
        "image": side(VIT_B16, image_tune, image_size=256),
        "text": side(BERT_BASE, text_tune),
    }

    params = {f"{name}_tower": towers.abstract_params(s.tower.module) for name, s in sides.items()}
    trained, frozen = (
        sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
        for tree in jax.eval_shape(functools.partial(Model(**sides).init, 0), params)
    )
    return trained, trained + frozen


@pytest.mark.parametrize(
    ("image", "text", "trained", "percent"),
    [
        ("full", "full", 195_130_113, 100),
        ("frozen", "full", 109_285_377, 56.01),
        ("frozen", "frozen", 393_729, 0.20),
        ("layernorm", "layernorm", 470_529, 0.24),
        ("bitfit", "bitfit", 598_785, 0.31),
        ("append", "append", 14_571_009, 6.96),
        ("append+layernorm", "append+layernorm", 14_646_273, 7.00),
        ("adapter", "adapter", 14_595_585, 6.97),
        ("adapter+layernorm", "adapter+layernorm", 14_672_385, 7.01),
        ("adapter+bitfit", "adapter+bitfit", 14_800_641, 7.07),
    ],
)
def test_as_many_parameters_are_trained_as_the_paper_says(image, text, trained, percent):
    found, whole = counts(image, text)
    assert found == trained
    assert round(100 * found / whole, 2) == percent


QWEN3 = {  # Qwen3-Embedding-0.6B.
    "model_type": "qwen3",
    "vocab_size": 151_669,
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
}


def trained(config, tune):
    """Trained parameters of a tower alone."""
    tower = side(config, "frozen").tower
    init = functools.partial(Tuned(tower=tower, tune=tune).init, jax.random.key(0))
    tree, _ = jax.eval_shape(init, towers.abstract_params(tower.module))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_a_tower_of_grouped_heads_is_counted_as_by_hand():
    """Norms by RMS without a bias, a gate, 16 heads of queries and 8 of keys, each 128 wide."""
    norms = 2 * 1024 + 2 * 128
    attention = 1024 * 2048 + 2 * 1024 * 1024 + 2048 * 1024
    block = norms + attention + 3 * 1024 * 3072
    adapters = 2 * (1024 * 256 + 256 + 256 * 1024 + 1024)
    lora = 8 * (1024 + 2048) + 8 * (1024 + 1024)
    whole = 151_669 * 1024 + 28 * block + 1024
    assert whole == 595_776_512
    by_hand = {
        "full": whole,
        "frozen": 0,
        "layernorm": 28 * norms + 1024,
        "append": block + 1024,
        "append+layernorm": block + 28 * norms + 1024,
        "adapter": 28 * adapters,
        "adapter+layernorm": 28 * (adapters + norms) + 1024,
        "adapter+bitfit": 28 * adapters,
        "lora": 28 * lora,
        "top:2": 2 * block + 1024,
    }
    assert {tune: trained(QWEN3, tune) for tune in by_hand} == by_hand


def test_bitfit_of_a_tower_without_biases_is_one_sentence():
    with pytest.raises(UserError, match="'bitfit' trains nothing of the qwen3 tower"):
        trained(QWEN3, "bitfit")


# Of DINOv3-S by hand, with d = 384: a block has four square kernels and the MLP's two, biases of
# queries, values and outputs but not of keys, two norms and two layer scales.
D, MLP, BLOCKS = 384, 1536, 12
NORM = 2 * D
BIASES = 3 * D + MLP + D
BLOCK = 4 * D * D + 2 * D * MLP + BIASES + 2 * NORM + 2 * D
EMBED = 16 * 16 * 3 * D + D + D + 4 * D  # Patches and their bias, CLS, registers.
ADAPTER = 2 * (2 * D * D // 4 + D // 4 + D)
NORMS = (2 * BLOCKS + 1) * NORM
BITFIT = NORMS // 2 + BLOCKS * BIASES + D
LORA = BLOCKS * 2 * 2 * D * 8


def test_a_dinov3_is_counted_as_by_hand():
    whole = EMBED + BLOCKS * BLOCK + NORM
    assert whole == 21_596_160
    by_hand = {
        "full": whole,
        "frozen": 0,
        "layernorm": NORMS,
        "bitfit": BITFIT,
        "append": BLOCK + NORM,
        "append+layernorm": BLOCK + NORMS,
        "adapter": BLOCKS * ADAPTER,
        "adapter+layernorm": BLOCKS * ADAPTER + NORMS,
        "adapter+bitfit": BLOCKS * ADAPTER + BITFIT,
        "lora": LORA,
        "top:2": 2 * BLOCK + NORM,
    }
    assert {tune: trained(DINOV3_S, tune) for tune in by_hand} == by_hand


MODERNBERT = {"model_type": "modernbert"}  # ModernBERT-base.


def test_modernbert_is_counted_as_by_hand():
    """Norms without biases, a gate, and a first block whose first norm is a row without a part."""
    unread = 768
    block = 2 * 768 + 4 * 768 * 768 + 3 * 768 * 1152
    adapters = 2 * (768 * 192 + 192 + 192 * 768 + 768)
    whole = 50_368 * 768 + 768 + 22 * block + 768 - unread
    assert whole == 149_014_272  # As transformers' class has.
    by_hand = {
        "full": whole + unread,
        "layernorm": 768 + 22 * 2 * 768 + 768,
        "append": block + 768,
        "adapter": 22 * adapters,
        "adapter+layernorm": 22 * (adapters + 2 * 768) + 2 * 768,
        "lora": 22 * 2 * 8 * (768 + 768),
        "top:2": 2 * block + 768,
    }
    assert {tune: trained(MODERNBERT, tune) for tune in by_hand} == by_hand
    with pytest.raises(UserError, match="'bitfit' trains nothing"):
        trained(MODERNBERT, "bitfit")
