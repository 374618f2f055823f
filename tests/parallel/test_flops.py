"""What each of eight devices computes in a training step: an eighth of what one alone does."""

import dataclasses

import jax
import pytest

from ape_jax import config as config_lib
from ape_jax.align.losses.ring import TILE
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.planner import shapes
from ape_jax.planner.shapes import Captions
from ape_jax.training import step

# More than a tile of the ring, as on one device an only tile's product is not made twice.
BATCH, WIDTH = 2 * TILE, 256
HEADS = {
    "text.tower": f"features:{WIDTH}",
    "text.head.name": "pooled_mlp",
    "text.head.depth": 2,
    "text.head.width": 512,
}


def flops_a_device(config, devices):
    """The compiler's count, of a tower's blocks one by one."""
    mesh = mesh_lib.make_mesh(devices)
    towers = shapes.abstract_towers(config)
    image, text = (
        dataclasses.replace(tower, module=tower.module.clone(unroll=True))
        if hasattr(tower.module, "unroll")
        else tower
        for tower in (towers.image, towers.text)
    )
    towers = dataclasses.replace(towers, image=image, text=text)
    model, trainable, frozen = shapes.abstract_model(config, towers)
    one, optimizer = step.from_config(config, model, trainable, mesh)
    state = jax.eval_shape(lambda t: step.init_state(t, optimizer), trainable)
    state, frozen = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=mesh_lib.replicated(mesh)),
        (state, frozen),
    )
    batch = shapes.batch(config, model, mesh, Captions(mean=8, longest=8))
    key = jax.eval_shape(lambda: jax.random.key(0))
    counted = jax.jit(one).lower(state, frozen, batch, key).compile().cost_analysis()["flops"]
    if config.loss.impl == "ring":
        # Of the loop over meetings, or over tiles on one device, the compiler counts one turn.
        rows = min(BATCH // devices, TILE)
        turns = BATCH * BATCH // devices // rows**2
        counted += (turns - 1) * 4 * 2 * rows**2 * WIDTH
    return counted


@pytest.mark.parametrize(
    ("impl", "trained"),
    [("dense", "head"), ("ring", "head"), pytest.param("ring", "tower", marks=pytest.mark.slow)],
)
def test_a_device_computes_its_share(tiny, impl, trained):
    config = config_lib.default()
    settings = {
        "image.tower": f"features:{WIDTH}",
        "image.head.name": "linear",
        "embed": WIDTH,
        "data.pairs": "features:none.parquet",
        "train.batch": BATCH,
        "loss.impl": impl,
    }
    tower = {"text.tower": tiny / "text", "text.tune": "full", "text.head.name": "linear"}
    settings |= HEADS if trained == "head" else tower
    config_lib.override(config, {key: str(value) for key, value in settings.items()})
    config = config_lib.resolve(config)
    alone, shared = flops_a_device(config, 1), flops_a_device(config, 8)
    # At least the loss's products: nothing is hidden from the count.
    assert alone > 6 * BATCH**2 * WIDTH
    assert shared == pytest.approx(alone / 8, rel=0.05)
