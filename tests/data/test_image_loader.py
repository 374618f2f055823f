"""Batches: a function of (seed, step), whatever threads, restarts, processes and bad images do."""

import itertools
import threading

import numpy as np
import pytest

from ape_jax.data.image_loader import Skipped, image_batches, train_batches
from ape_jax.data.labelled import Labelled
from ape_jax.data.pairs import Pair, Pairs
from ape_jax.data.sampling import Order, generator
from ape_jax.errors import UserError
from ape_jax.images.augment import Augment
from ape_jax.images.decode import ImageError, ImageRef, load_image
from ape_jax.images.transforms import ImageTransform

TRANSFORM = ImageTransform(size=8, resize_size=8)
AUGMENT = Augment(crop=(0.2, 1.0), flip=True, randaugment=(2, 7))


def make_pairs(n: int = 10, bad: tuple[int, ...] = (), size: int = 12) -> Pairs:
    rng = np.random.default_rng(0)
    made = []
    for i in range(n):
        pixels = rng.integers(0, 256, (size, size, 3), np.uint8)
        source = b"broken" if i in bad else pixels
        captions = tuple(f"{i} {j}" for j in range(1 + i % 3))
        made.append(Pair(ImageRef(source, f"image {i}"), captions, str(i)))
    return Pairs.of(made)


def train(pairs, steps: int, **kwargs) -> list[dict[str, np.ndarray]]:
    settings = {"transform": TRANSFORM, "augment": AUGMENT, "batch": 4}
    batches = train_batches(pairs, **{**settings, "seed": 3, **kwargs})
    try:
        return list(itertools.islice(batches, steps))
    finally:
        batches.close()


def check_equal(got, expected):
    assert len(got) == len(expected)
    for a, b in zip(got, expected):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_train_batch_holds_what_order_and_generator_say():
    pairs = make_pairs()
    order = Order(10, 3)
    for step, batch in enumerate(train(pairs, 6)):
        index = order.indices(step, 4)
        np.testing.assert_array_equal(batch["index"], index)
        at = np.arange(4 * step, 4 * step + 4)
        views = [
            AUGMENT(load_image(pairs[i].image), generator(3, "augment", p), TRANSFORM)
            for i, p in zip(index, at.tolist())
        ]
        np.testing.assert_array_equal(batch["image"], views)
    assert {k: (v.dtype, v.shape) for k, v in batch.items()} == {
        "image": (np.float32, (4, 8, 8, 3)),
        "index": (np.int32, (4,)),
    }


@pytest.mark.parametrize("start", [1, 5])
def test_starting_late_equals_skipping(start):
    pairs = make_pairs()
    check_equal(train(pairs, 3, start_step=start), train(pairs, start + 3)[start:])


@pytest.mark.parametrize("workers", [1, 5])
def test_threads_do_not_change_batches(workers):
    pairs = make_pairs()
    check_equal(train(pairs, 5, workers=workers), train(pairs, 5))


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_same_global_batch(count):
    pairs = make_pairs()
    shares = [train(pairs, 4, process_index=i, process_count=count) for i in range(count)]
    joined = [{k: np.concatenate([s[k] for s in step]) for k in step[0]} for step in zip(*shares)]
    check_equal(joined, train(pairs, 4))


def test_iterator_state_counts_from_step_zero():
    pairs = make_pairs()
    settings = {
        "transform": TRANSFORM,
        "augment": None,
        "batch": 4,
        "seed": 3,
    }
    first = train_batches(pairs, start_step=2, **settings)
    next(first)
    state = first.get_state()
    second = train_batches(pairs, **settings)
    second.set_state(state)
    check_equal([next(second)], train(pairs, 4, augment=None)[3:])
    first.close(), second.close()


def test_seeds_differ():
    pairs = make_pairs()
    a, b = train(pairs, 1)[0], train(pairs, 1, seed=4)[0]
    assert not np.array_equal(a["image"], b["image"])


def test_an_unreadable_image_stops_training_by_name():
    with pytest.raises(ImageError, match="image 7"):
        train(make_pairs(bad=(7,)), 5)


@pytest.mark.parametrize("workers", [1, 4])
def test_skipping_puts_the_next_good_record_in_place(workers):
    pairs, skipped = make_pairs(bad=(4, 8, 9)), Skipped()
    got = train(pairs, 5, on_error="skip", skipped=skipped, workers=workers)
    index = np.concatenate([b["index"] for b in got])
    replaced = {4: 5, 8: 0, 9: 0}
    order = np.concatenate([Order(10, 3).indices(s, 4) for s in range(5)])
    assert index.tolist() == [replaced.get(i, i) for i in order.tolist()]
    views = [
        AUGMENT(load_image(pairs[i].image), generator(3, "augment", p), TRANSFORM)
        for p, i in enumerate(index)
    ]
    np.testing.assert_array_equal(np.concatenate([b["image"] for b in got]), views)
    assert skipped.indices == (4, 8, 9) and len(skipped) == 3
    assert "image 4" in skipped.reasons[0]


def test_nothing_readable_is_an_error():
    with pytest.raises(UserError, match="none of the 4 images"):
        train(make_pairs(4, bad=(0, 1, 2, 3)), 1, on_error="skip")


BAD = {
    "batch above pairs": ({"batch": 11}, "train.batch: 11 is more than the 10 pairs"),
    "batch zero": ({"batch": 0}, "train.batch: 0"),
    "batch not divisible": ({"process_count": 3}, "3 processes"),
    "workers": ({"workers": 0}, "data.workers: found 0"),
    "on_error": ({"on_error": "ignore"}, "data.on_error: found 'ignore'"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_told_before_anything_is_decoded(name):
    kwargs, expected = BAD[name]
    with pytest.raises(UserError, match=expected):
        train(make_pairs(bad=tuple(range(10))), 0, **kwargs)


def collect(pairs, **kwargs):
    return list(image_batches(pairs, **{"transform": TRANSFORM, "batch": 4, **kwargs}))


def rows(batches):
    joined = {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
    return {k: v[joined["valid"]] for k, v in joined.items()}


def test_every_record_once_and_padding_is_marked():
    pairs = make_pairs()
    batches = collect(pairs)
    assert [b["valid"].sum() for b in batches] == [4, 4, 2]
    assert all(len(v) == 4 for b in batches for v in b.values())
    got = rows(batches)
    assert got["index"].tolist() == list(range(10)) and not got["view"].any()
    expected = [TRANSFORM(load_image(p.image)) for p in pairs]
    np.testing.assert_array_equal(got["image"], expected)
    assert not batches[-1]["image"][2:].any()


def test_views_are_keyed_by_seed_record_and_view_alone():
    pairs = make_pairs()
    many = rows(collect(pairs, augment=AUGMENT, views=3, seed=5, workers=3))
    pairs_seen = list(zip(many["index"].tolist(), many["view"].tolist()))
    assert pairs_seen == [(i, v) for i in range(10) for v in range(3)]
    some = rows(collect(pairs, augment=AUGMENT, views=2, seed=5, batch=7, indices=[6, 2]))
    for image, i, v in zip(some["image"], some["index"].tolist(), some["view"].tolist()):
        np.testing.assert_array_equal(image, many["image"][3 * i + v])
        expected = AUGMENT(load_image(pairs[i].image), generator(5, "view", i, v), TRANSFORM)
        np.testing.assert_array_equal(image, expected)
    assert some["index"].tolist() == [6, 6, 2, 2]


def test_skipped_images_leave_no_gap_and_are_named():
    skipped = Skipped()
    got = rows(collect(make_pairs(bad=(0, 5)), views=2, on_error="skip", skipped=skipped))
    assert got["index"].tolist() == [i for i in range(10) if i not in (0, 5) for _ in range(2)]
    assert skipped.indices == (0, 5) and "image 5" in skipped.reasons[1]


def test_unreadable_images_are_errors_by_default():
    with pytest.raises(ImageError, match="image 5"):
        collect(make_pairs(bad=(5,)))


def test_no_readable_image_at_all_is_an_error():
    with pytest.raises(UserError, match="none of the images"):
        collect(make_pairs(3, bad=(0, 1, 2)), on_error="skip")


@pytest.mark.parametrize("kwargs", [{"batch": 0}, {"views": 0}, {"workers": -1}])
def test_bad_image_batches_settings(kwargs):
    with pytest.raises(UserError):
        collect(make_pairs(), **kwargs)


def test_no_indices_is_no_batch():
    assert collect(make_pairs(), indices=[]) == []


def test_labelled_images_can_be_batched():
    pairs = make_pairs(3)
    labelled = Labelled([(p.image, i) for i, p in enumerate(pairs)], ["a", "b", "c"])
    check_equal(collect(labelled), collect(pairs))


def test_background_shows_under_transparent_images():
    clear = ImageRef(np.zeros((4, 4, 4), np.uint8), "clear")
    plain = ImageTransform(
        size=4, resize_size=4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), rescale=1.0
    )
    (batch,) = collect([Pair(clear, ("x",), "0")], transform=plain, batch=1, background=(1, 2, 3))
    np.testing.assert_array_equal(batch["image"][0, 0, 0], (1, 2, 3))


def test_leaving_early_ends_the_threads():
    before = set(threading.enumerate())
    batches = image_batches(make_pairs(100), transform=TRANSFORM, batch=4, workers=2)
    next(batches)
    started = set(threading.enumerate()) - before
    assert started
    batches.close()
    for thread in started:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in started)
