"""Training steps: the moving average of what is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ape_jax import towers
from ape_jax.align import heads
from ape_jax.align.model import Model, Side
from ape_jax.training import step as step_lib


def test_moving_average_is_that_of_the_parameters_after_each_step(tiny, rng):
    image, image_params = towers.read(str(tiny / "image"), kind="image", dtype="float32")
    text, text_params = towers.read(str(tiny / "text"), kind="text", dtype="float32")
    head = heads.TokenMLP(32, text.config, depth=1, dtype=jnp.float32)
    model = Model(
        image=Side(tower=image, head=heads.Identity(), pooling="cls"),
        text=Side(tower=text, head=head),
    )
    trainable, frozen = model.init(0, {"image_tower": image_params, "text_tower": text_params})
    batch = {
        "pooled": rng.normal(size=(8, 32)).astype(np.float32),
        "tokens": rng.normal(size=(8, 3, 32)).astype(np.float32),
        "mask": np.ones((8, 3), bool),
        "index": np.arange(8, dtype=np.int32),
    }
    optimizer = optax.sgd(0.5)
    step = jax.jit(step_lib.make_step(model, "softmax", optimizer, ema=0.3))
    state, want = step_lib.init_state(trainable, optimizer, 0.3), trainable
    for count in range(4):
        state, _ = step(state, frozen, batch, jax.random.key(0))
        kept = min(0.3, (1 + count) / (10 + count))
        want = jax.tree.map(lambda a, b, k=kept: k * a + (1 - k) * b, want, state.trainable)
    for ours, expected in zip(jax.tree.leaves(state.evaluated), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
    assert (
        np.abs(
            np.asarray(
                state.average["text_head"]["dense_0"]["kernel"]
                - state.trainable["text_head"]["dense_0"]["kernel"]
            )
        ).max()
        > 1e-4
    )
