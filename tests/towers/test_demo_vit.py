"""Real weights: demo:vit_s14 against torch's Dinov2Model from the same directory."""

import jax
import numpy as np
import pytest
import torch
import transformers

from ape_jax import towers
from ape_jax.data.specs import open_pairs
from ape_jax.demo.towers import assets
from ape_jax.features.encode import FrozenTower
from ape_jax.images.decode import load_image
from ape_jax.parallel import mesh as mesh_lib


@pytest.fixture(scope="module")
def reference():
    path = assets.tower_dir("vit_s14")
    return transformers.Dinov2Model.from_pretrained(path).eval()


@pytest.fixture(scope="module")
def tower():
    return towers.load("demo:vit_s14", dtype="float32")


def test_every_token_of_the_demo_tower_equals_torch(tower, reference):
    picture = np.random.default_rng(0).integers(0, 256, (150, 120, 3), np.uint8)
    image = tower.prepare([picture])["image"]
    assert image.shape == (1, 224, 224, 3)
    with torch.inference_mode():
        pixels = torch.tensor(image).permute(0, 3, 1, 2)
        want = reference(pixels, output_hidden_states=True)
    got = tower({"image": image})
    inner = tower({"image": image}, layer=8, pooling="none")
    for ours, theirs in (
        (got.tokens, want.last_hidden_state),
        (got.pooled, want.pooler_output),
        (inner.tokens, want.hidden_states[8]),
    ):
        theirs = theirs.numpy()
        assert np.abs(np.asarray(ours) - theirs).max() < 2e-5 * np.abs(theirs).max()


def test_the_demo_tower_has_the_parameters_of_a_vit_s(tower):
    sizes = [leaf.size for leaf in jax.tree.leaves(tower.params)]
    assert 22.0e6 < sum(sizes) < 22.1e6
    assert (tower.config.width, tower.config.depth, tower.config.grid) == (384, 12, 37)


@pytest.mark.parametrize("layer, bound", [(9, 3e-3), (-1, 6e-3)])
def test_inference_in_bfloat16_stays_near_float32_where_plain_does_not(tower, layer, bound):
    pairs = open_pairs("demo:twemoji:test")
    narrow = towers.load("demo:vit_s14", image_size=112, dtype="bfloat16")
    batch = narrow.prepare([load_image(pairs[i].image) for i in range(16)])
    mesh = mesh_lib.make_mesh(1)
    params = mesh_lib.place_frozen(narrow.params, mesh, 2**20)
    options = {"layer": layer, "pooling": "cls+mean"}
    reader = FrozenTower(tower=narrow.tower, params=params, mesh=mesh, batch=16, **options)
    want = np.asarray(tower(batch, **options).pooled)

    def error(x):
        return np.linalg.norm(np.asarray(x) - want) / np.linalg.norm(want)

    assert error(reader(batch).pooled) < bound < error(narrow(batch, **options).pooled)
