"""The parameter counts of LilT's pair (arXiv 2303.11866), from configs alone."""

import math

import jax

from ape_jax import towers

VIT_B16 = {"model_type": "vit", "hidden_size": 768, "num_hidden_layers": 12, "patch_size": 16}
BERT_BASE = {"model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12}


def shapes(config, **options):
    module, _ = towers.build(config, **options)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(towers.abstract_params(module))
    }


def count(tree, keep=lambda name: True):
    return sum(math.prod(leaf.shape) for name, leaf in tree.items() if keep(name))


def test_whole_pair_is_as_large_as_the_paper_says():
    """DeiT-B at 256 px and BERT-base without pooler, two projections to 256 and the scale."""
    image, text = shapes(VIT_B16, image_size=256), shapes(BERT_BASE)
    projections = 2 * (768 * 256 + 256) + 1
    assert projections == 393_729
    assert count(image) == 85_844_736
    assert count(text) + projections == 109_285_377  # the LiT variant: text tower and heads
    assert count(image) + count(text) + projections == 195_130_113


def test_layer_norms_and_biases_are_as_many_as_the_paper_says():
    both = [shapes(VIT_B16, image_size=256), shapes(BERT_BASE)]

    def norms(name):
        return "norm" in name

    def biases(name):
        return name.endswith("bias")

    assert sum(count(tree, norms) for tree in both) + 393_729 == 470_529
    assert sum(count(tree, biases) for tree in both) + 393_729 == 598_785


def test_image_size_changes_nothing_but_the_position_table():
    small, large = shapes(VIT_B16), shapes(VIT_B16, image_size=256)
    changed = {name for name in small if small[name].shape != large[name].shape}
    assert changed == {"embed/position"}
