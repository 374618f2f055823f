"""Order and samples: permutations, restarts, any number of processes, uniform."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ape_jax.data.sampling import Order, generator, permutation, threefry2x32, uniform
from ape_jax.data.sampling import order as sampling
from ape_jax.errors import UserError


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**40), st.data())
def test_every_record_once_an_epoch(n, seed, data):
    batch = data.draw(st.integers(1, n))
    order = Order(n, seed)
    seen = np.concatenate([order.indices(step, batch) for step in range(3 * n)])
    epochs = seen[: len(seen) // n * n].reshape(-1, n)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(n), (len(epochs), 1)))


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_processes_share_the_same_global_batch(count):
    order = Order(50, seed=1)
    for step in (0, 7, 1000):
        shares = [order.indices(step, 12, i, count) for i in range(count)]
        assert all(len(s) == 12 // count for s in shares)
        np.testing.assert_array_equal(np.concatenate(shares), order.indices(step, 12))


def test_epochs_and_seeds_differ():
    epochs = [tuple(Order(100, seed).indices(step, 100)) for seed in (0, 1) for step in (0, 1, 2)]
    assert len(set(epochs)) == 6


def test_a_fresh_order_continues_where_another_was():
    np.testing.assert_array_equal(Order(33, 4).indices(90, 8), Order(33, 4).indices(90, 8))


def test_one_position_at_a_time_equals_a_batch():
    order = Order(7, 2)
    got = np.concatenate([order.indices(step, 5) for step in range(9)])
    assert got.tolist() == [order.at(position) for position in range(45)]


def test_order_is_pinned():
    # A change here changes every run that is resumed.
    assert Order(10, 0).indices(0, 5).tolist() == [6, 0, 3, 2, 9]
    assert Order(10, 0).indices(2**40, 5).tolist() == [2, 4, 9, 6, 0]
    far, counts = 2**32 - 2 + np.arange(4), np.array([7, 2**32 - 1, 1000, 50])
    assert uniform(9, "view", far, counts).tolist() == [3, 2798879246, 272, 34]
    assert uniform(0, "caption", np.arange(8), np.full(8, 100)).tolist() == [
        57,
        23,
        51,
        44,
        93,
        63,
        32,
        21,
    ]
    assert generator(0, "view", 3, 2).integers(1000, size=3).tolist() == [705, 420, 890]


def test_batch_larger_than_the_pairs_names_both():
    with pytest.raises(UserError, match=r"train\.batch.*64.*10 pairs"):
        Order(10, 0).indices(0, 64)


def test_batch_that_does_not_divide_names_the_processes():
    with pytest.raises(UserError, match=r"train\.batch.*3 processes"):
        Order(100, 0).indices(0, 64, 0, 3)


@pytest.mark.parametrize("n", [0, 2**32])
def test_number_of_records_is_checked(n):
    with pytest.raises(UserError, match=r"data\.pairs"):
        Order(n, 0)


@pytest.mark.parametrize("count", [2, 5, 7, 64])
def test_samples_are_uniform(count):
    values = uniform(3, "caption", np.arange(100_000), np.full(100_000, count))
    assert values.dtype == np.int64 and values.min() == 0 and values.max() == count - 1
    assert stats.chisquare(np.bincount(values, minlength=count)).pvalue > 1e-4


def test_neighbouring_positions_seeds_and_streams_are_independent():
    at, counts = np.arange(60_000), np.full(60_000, 5)
    base = uniform(0, "caption", at, counts)
    others = [
        uniform(1, "caption", at, counts),
        uniform(0, "view", at, counts),
        uniform(0, "caption", at + 1, counts),
        uniform(0, "caption", at + 2**32, counts),
    ]
    for other in others:
        table = np.histogram2d(base, other, bins=5)[0]
        assert stats.chi2_contingency(table).pvalue > 1e-4


@given(
    st.lists(st.tuples(st.integers(0, 2**62), st.integers(1, 2**32 - 1)), min_size=1, max_size=20)
)
def test_samples_lie_in_range_and_depend_on_their_own_position_only(rows):
    at, counts = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    together = uniform(9, "x", at, counts)
    assert (together >= 0).all() and (together < counts).all()
    alone = [uniform(9, "x", at[i : i + 1], counts[i : i + 1])[0] for i in range(len(rows))]
    assert together.tolist() == alone


def test_an_empty_range_is_refused():
    with pytest.raises(ValueError, match="counts"):
        uniform(0, "x", np.array([0]), np.array([0]))


def test_generators_of_neighbours_do_not_overlap():
    rows = [generator(0, "v", i, v).integers(2**63, size=8) for i in range(20) for v in range(20)]
    assert len(np.unique(rows)) == 20 * 20 * 8


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [  # Random123's known answers for threefry2x32 with 20 rounds.
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((2**32 - 1,) * 2, (2**32 - 1,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_known_answers(key, counter, expected):
    key, counter = (high << 32 | low for high, low in (key, counter))
    made = threefry2x32(key, np.array([counter], np.uint64))
    assert tuple(int(x[0]) for x in made) == expected


def test_threefry_equals_that_of_jax(rng):
    from jax.extend.random import threefry_2x32

    key, words = rng.integers(0, 2**32, 2, np.uint32), rng.integers(0, 2**32, 2000, np.uint32)
    high, low = (half.astype(np.uint64) for half in np.split(words, 2))
    made = threefry2x32(int(key[0]) << 32 | int(key[1]), high << np.uint64(32) | low)
    np.testing.assert_array_equal(np.concatenate(made), threefry_2x32(key, words))


@pytest.mark.parametrize("n", [1, 2, 7, 64, 1001, 70_000])
def test_a_permutation_holds_every_index_once(n):
    for seed, epoch in ((0, 0), (0, 1), (2**32 - 1, 2**40 + 5)):
        assert sorted(permutation(n, seed, epoch)) == list(range(n))


def test_equal_hashes_keep_the_order_of_their_indices(monkeypatch):
    monkeypatch.setattr(sampling, "threefry2x32", lambda key, counters: (counters // 9,) * 2)
    expected = np.lexsort((np.arange(3000), np.tile(np.arange(1500) // 9, 2)))
    np.testing.assert_array_equal(permutation(3000, 0, 0), expected)


def test_a_sample_is_the_upper_half_of_the_product(monkeypatch, rng):
    bits, counts = rng.integers(0, 2**32, 1000, np.uint32), rng.integers(1, 2**32, 1000)
    monkeypatch.setattr(sampling, "threefry2x32", lambda key, counters: (bits, bits))
    expected = [int(b) * int(c) >> 32 for b, c in zip(bits, counts)]
    assert uniform(1, "x", np.arange(1000), counts).tolist() == expected


def test_every_record_comes_at_every_place_equally_often():
    places = np.zeros((20, 20), int)
    for epoch in range(4000):
        places[permutation(20, 0, epoch), np.arange(20)] += 1
    assert stats.chisquare(places.ravel()).pvalue > 1e-4


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 12), st.integers(1, 6), st.integers(0, 2**40))
def test_an_epoch_by_blocks_holds_every_record_once_window_after_window(n, block, window, epoch):
    made = sampling.by_blocks(n, 7, epoch, np.arange(n), block, window)
    assert sorted(made) == list(range(n))
    # Brute force: cut where `window` whole blocks have come.
    blocks = [range(i, min(i + block, n)) for i in range(0, n, block)]
    left = made.tolist()
    while left:
        first = dict.fromkeys(record // block for record in left)
        chosen, size = [], 0
        for k in first:  # The blocks of the next window are those that its records are of.
            chosen.append(k)
            size = sum(len(blocks[j]) for j in chosen)
            if sorted(left[:size]) == sorted(r for j in chosen for r in blocks[j]) and (
                len(chosen) == window or size == len(left)
            ):
                break
        assert sorted(left[:size]) == sorted(r for j in chosen for r in blocks[j])
        assert len(chosen) <= window
        left = left[size:]


def test_an_order_by_blocks_is_the_same_wherever_it_is_asked():
    offsets = np.arange(100)
    whole = sampling.by_blocks(100, 3, 5, offsets, 8, 3)
    assert [sampling.by_blocks(100, 3, 5, offsets[i : i + 1], 8, 3)[0] for i in offsets] == [*whole]
    mixed = np.random.default_rng(0).permutation(100)
    np.testing.assert_array_equal(sampling.by_blocks(100, 3, 5, mixed, 8, 3), whole[mixed])


def test_orders_by_blocks_of_epochs_and_seeds_differ():
    made = {
        tuple(sampling.by_blocks(64, seed, epoch, np.arange(64), 8, 3))
        for seed in (0, 1)
        for epoch in (0, 1, 2)
    }
    assert len(made) == 6


def test_every_record_comes_in_every_eighth_of_epochs_by_blocks_equally_often():
    places = np.zeros((40, 8), int)
    for epoch in range(3000):
        order = sampling.by_blocks(40, 0, epoch, np.arange(40), 4, 3)
        places[order, np.arange(40) // 5] += 1
    assert stats.chisquare(places.ravel()).pvalue > 1e-4


def test_neighbours_in_a_window_are_independent():
    follows = np.zeros((12, 12), int)
    for epoch in range(4000):
        order = sampling.by_blocks(12, 0, epoch, np.arange(12), 4, 3)
        follows[order[:-1], order[1:]] += 1
    assert not follows.diagonal().any()
    assert stats.chisquare(follows[~np.eye(12, dtype=bool)]).pvalue > 1e-4


def test_only_large_sets_are_shuffled_by_blocks():
    at = np.array([0, 5, 2**18 - 1])
    np.testing.assert_array_equal(Order(2**18, 1).lookup(at), permutation(2**18, 1, 0)[at])
    large = Order(2**18 + 1, 1)
    window = large.lookup(np.arange(2**16 - 1024))
    assert len(np.unique(window)) == len(window) and len(np.unique(window // 1024)) <= 64
    assert sampling.version(2**18) == sampling.VERSION != sampling.version(2**18 + 1)


def test_order_by_blocks_is_pinned():
    # A change here changes every run that is resumed.
    assert Order(10**6, 0).indices(0, 4).tolist() == [518962, 950289, 653088, 547974]
    assert Order(10**6, 0).indices(2**40, 4).tolist() == [57549, 834536, 770420, 359379]
    assert Order(2**32 - 1, 3).indices(1000, 4).tolist() == [
        2327285844,
        3168000152,
        1101523022,
        2993143727,
    ]
