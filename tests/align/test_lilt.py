"""The ten variants of LilT (arXiv 2303.11866), counted in the trees of the real model."""

import functools
import math

import jax
import pytest

from ape_jax import towers
from ape_jax.align import heads
from ape_jax.align.model import Model, Side
from ape_jax.towers.tower import Tower

VIT_B16 = {"model_type": "vit", "hidden_size": 768, "num_hidden_layers": 12, "patch_size": 16}
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
