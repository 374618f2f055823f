"""The loss with its options: which ids it takes from a batch, and several captions an image."""

import jax.numpy as jnp
import numpy as np
import pytest

from ape_jax.align import losses
from ape_jax.align.losses import objective
from ape_jax.align.losses.objective import Objective
from ape_jax.errors import UserError

B, E = 8, 6
INDEX = np.array([0, 1, 2, 3, 4, 5, 6, 0], np.int32)
TEXT = np.array([9, 8, 7, 9, 5, 4, 3, 2], np.int32)


def unit(rng, *shape):
    z = rng.normal(size=shape)
    return (z / np.linalg.norm(z, axis=-1, keepdims=True)).astype(np.float32)


def test_ids_of_a_batch():
    batch = {"index": INDEX, "text": TEXT}
    assert Objective(same="none").ids(batch) is None
    np.testing.assert_array_equal(Objective(same="image").ids(batch), INDEX)
    got = Objective(same="image+caption").ids(batch)
    np.testing.assert_array_equal(got, np.stack([INDEX, TEXT], axis=1))


def test_one_caption_under_two_images_is_no_negative_of_either(rng):
    zimg, ztxt = unit(rng, B, E), unit(rng, B, E)
    batch = {"index": INDEX, "text": TEXT}
    scale = jnp.float32(5.0)

    def loss(same):
        made = Objective(same=same)
        return float(made(zimg, ztxt, scale, None, made.ids(batch)))

    pairs = {(0, 3), (0, 7)}  # Caption 9 of images 0 and 3; image 0 twice.
    for same, masked in (("none", set()), ("image", {(0, 7)}), ("image+caption", pairs)):
        logits = 5 * zimg.astype(float) @ ztxt.T.astype(float)
        for i, j in masked:
            logits[i, j] = logits[j, i] = -np.inf
        rows, columns = (np.log(np.exp(logits).sum(axis)).mean() for axis in (1, 0))
        expected = (rows + columns) / 2 - np.diag(logits).mean()
        assert loss(same) == pytest.approx(expected, rel=1e-5)


def test_several_positives_are_the_mean_of_their_losses(rng):
    zimg, ztxt = unit(rng, B, E), unit(rng, B, 3, E)
    made = Objective(name="sigmoid", positives=3, options={"normalize": "square"})
    scale, bias = jnp.float32(5.0), jnp.float32(-2.0)
    value = made(zimg, ztxt.reshape(-1, E), scale, bias, INDEX)
    parts = [
        losses.sigmoid(zimg, ztxt[:, p], scale, bias, ids=INDEX, normalize="square")
        for p in range(3)
    ]
    assert float(value) == pytest.approx(float(np.mean(parts)), rel=1e-6)


def test_a_caption_is_compared_with_every_caption_of_the_other_image(rng):
    zimg, ztxt = unit(rng, 4, E), unit(rng, 4, 2, E)
    # Image 1 has text 7 first, image 0 second.
    batch = {
        "index": np.arange(4, dtype=np.int32),
        "text": np.array([[6, 7], [7, 8], [9, 10], [11, 12]], np.int32),
    }
    made = Objective(same="image+caption", positives=2)
    got = float(made(zimg, ztxt.reshape(-1, E), jnp.float32(5.0), None, made.ids(batch)))
    total = 0.0
    for p, masked in ((0, (0, 1)), (1, (1, 0))):
        logits = 5 * zimg.astype(float) @ ztxt[:, p].T.astype(float)
        own = np.diag(logits).mean()
        logits[masked] = -np.inf  # Image 0 with text 7 of pair 1; image 1 with text 7 of pair 0.
        total += sum(np.log(np.exp(logits).sum(axis)).mean() for axis in (0, 1)) / 2 - own
    assert got == pytest.approx(total / 2, rel=1e-5)


def test_a_name_is_a_plain_objective():
    assert objective.named("sigmoid") == Objective(name="sigmoid")
    smoothed = Objective(options={"smoothing": 0.1})
    assert objective.named(smoothed) is smoothed


def test_groups_that_do_not_fit_name_the_key():
    objective.check_batch(Objective(groups=4), 8)
    with pytest.raises(UserError, match=r"config\.loss\.local_groups: 3 .* 8 pairs"):
        objective.check_batch(Objective(groups=3), 8)
