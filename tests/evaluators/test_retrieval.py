"""Retrieval metrics against clip_benchmark's own functions, with and without ties."""

import tracemalloc

import numpy as np
import pytest
import torch
from clip_benchmark.metrics import zeroshot_retrieval

from ape_jax.errors import UserError
from ape_jax.evaluators import ranks, retrieval


def unit(rng, *shape):
    z = rng.normal(size=shape).astype(np.float32)
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def integers(rng, levels, *shape):
    """Small integers: every inner product is exact in float32, so ties are exact everywhere."""
    return rng.integers(-levels, levels + 1, shape).astype(np.float32)


def clip_benchmark_hits(zquery, zitem, positive, k):
    """Hit or miss of each query, by clip_benchmark's `recall_at_k` as its `evaluate` reads it."""
    scores = torch.from_numpy(zquery) @ torch.from_numpy(zitem).T
    recall = zeroshot_retrieval.recall_at_k(scores, torch.from_numpy(positive), k)
    return (recall > 0).numpy()


def clip_benchmark_metrics(zimg, ztxt, index, ks=(1, 5, 10)):
    positive = index[:, None] == np.arange(len(zimg))
    out = {f"i2t_r{k}": clip_benchmark_hits(zimg, ztxt, positive.T, k).mean() for k in ks}
    return out | {f"t2i_r{k}": clip_benchmark_hits(ztxt, zimg, positive, k).mean() for k in ks}


def best_and_worst_rank(zquery, zitem, positive):
    """Ranks of the first hit if ties fall in its favour, and if they fall against it."""
    scores = zquery @ zitem.T
    best = np.where(positive, scores, -np.inf).max(1, keepdims=True)
    above = (scores > best).sum(1)
    return 1 + above, 1 + above + ((scores == best) & ~positive).sum(1)


@pytest.mark.parametrize("seed", range(5))
def test_equals_clip_benchmark_on_random_embeddings(seed):
    rng = np.random.default_rng(seed)
    n, m = 40 + 30 * seed, 150 + 100 * seed
    index = np.concatenate([np.arange(n), rng.integers(0, n, m - n)])  # unordered, 1 to many each
    zimg = unit(rng, n, 32)
    ztxt = zimg[index] + 0.3 * unit(rng, m, 32) * rng.uniform(0, 10, (m, 1)).astype(np.float32)
    ours = retrieval.retrieval_metrics(zimg, ztxt, index)
    theirs = clip_benchmark_metrics(zimg, ztxt, index)
    assert {k: ours[k] for k in theirs} == pytest.approx(theirs, abs=1e-12)
    assert 0.02 < ours["t2i_r1"] < 0.98  # the case says something


def test_equals_clip_benchmark_evaluate_end_to_end():
    rng = np.random.default_rng(0)
    n = 30
    sizes = rng.integers(1, 6, n)
    index = np.repeat(np.arange(n), sizes)
    zimg = unit(rng, n, 16)
    ztxt = zimg[index] + 0.9 * unit(rng, len(index), 16)
    ztxt /= np.linalg.norm(ztxt, axis=1, keepdims=True)

    class Embedded:
        def encode_image(self, images):
            return images

        def encode_text(self, tokens):
            return torch.from_numpy(ztxt)[tokens]

    texts = [[str(j) for j in np.flatnonzero(index == i)] for i in range(n)]
    batches = [(torch.from_numpy(zimg[s : s + 7]), texts[s : s + 7]) for s in range(0, n, 7)]
    theirs = zeroshot_retrieval.evaluate(
        Embedded(), batches, lambda t: torch.tensor([int(x) for x in t]), "cpu", False, [1, 5, 10]
    )
    ours = retrieval.retrieval_metrics(zimg, ztxt, index)
    for k in (1, 5, 10):
        assert ours[f"t2i_r{k}"] == pytest.approx(theirs[f"image_retrieval_recall@{k}"], abs=1e-6)
        assert ours[f"i2t_r{k}"] == pytest.approx(theirs[f"text_retrieval_recall@{k}"], abs=1e-6)


@pytest.mark.parametrize("levels", [1, 2, 8])
@pytest.mark.parametrize("n", [12, 70, 700])
@pytest.mark.parametrize("k", [1, 5, 10])
def test_every_query_equals_clip_benchmark_where_ties_do_not_decide(levels, n, k):
    rng = np.random.default_rng(n + levels)
    index = np.concatenate([np.arange(n), rng.integers(0, n, n // 2)])
    zimg, ztxt = integers(rng, levels, n, 6), integers(rng, levels, len(index), 6)
    ztxt += 2 * zimg[index]
    ztxt[1::7] = ztxt[0:-1:7]  # duplicate captions, of one image or of two
    zimg[1::9] = zimg[0:-1:9]  # duplicate images
    image = np.arange(n)
    decided = 0
    for zq, zi, gq, gi in ((zimg, ztxt, image, index), (ztxt, zimg, index, image)):
        positive = gq[:, None] == gi
        low, high = best_and_worst_rank(zq, zi, positive)
        ours = ranks.first_hit_rank(zq, zi, gq, gi)
        assert ((low <= ours) & (ours <= high)).all()
        theirs = clip_benchmark_hits(zq, zi, positive, k)
        fixed = (low <= k) == (high <= k)
        np.testing.assert_array_equal((ours <= k)[fixed], theirs[fixed])
        # Theirs, too, is one of the possible outcomes, and so the bounds are the right ones.
        assert (high <= k).sum() <= theirs.sum() <= (low <= k).sum()
        decided += (~fixed).sum()
    if levels < 8 and k < n // 2:
        assert decided > 0  # ties that torch breaks its own way did occur


@pytest.mark.parametrize("n", [64, 200, 1000])
def test_equals_clip_benchmark_at_1_from_64_candidates_up_whatever_the_ties(n):
    rng = np.random.default_rng(n)
    index = np.concatenate([np.arange(n), rng.integers(0, n, n)])
    zimg, ztxt = integers(rng, 1, n, 4), integers(rng, 1, 2 * n, 4)
    ours = retrieval.retrieval_metrics(zimg, ztxt, index)
    theirs = clip_benchmark_metrics(zimg, ztxt, index, ks=(1,))
    assert {k: ours[k] for k in theirs} == pytest.approx(theirs, abs=1e-12)


def test_equals_clip_benchmark_when_an_image_has_the_same_caption_twice():
    rng = np.random.default_rng(3)
    n = 50
    index = np.repeat(np.arange(n), 4)
    zimg = unit(rng, n, 16)
    ztxt = zimg[index] + 1.5 * unit(rng, 4 * n, 16)
    ztxt[1::2] = ztxt[0::2]
    ours = retrieval.retrieval_metrics(zimg, ztxt, index)
    # Equal captions of one image are hits together or misses together, but two misses can still
    # straddle the cut; neither changes the figure.
    theirs = clip_benchmark_metrics(zimg, ztxt, index)
    assert {k: ours[k] for k in theirs} == pytest.approx(theirs, abs=1e-12)


def test_all_equal_scores_rank_by_index():
    n = 100
    index = np.repeat(np.arange(n), 2)
    ones = np.full((2 * n, 3), 0.5, np.float32)
    ours = retrieval.retrieval_metrics(ones[:n], ones, index)
    assert ours == {
        **{"i2t_r1": 0.01, "i2t_r5": 0.03, "i2t_r10": 0.05},
        **{"t2i_r1": 0.01, "t2i_r5": 0.05, "t2i_r10": 0.1},
        "median_rank_t2i": 50.5,
    }
    # A collapsed model is at chance, not at 1: ties are not broken in its favour.
    theirs = clip_benchmark_metrics(ones[:n], ones, index)
    assert all(theirs[k] <= 0.1 for k in theirs)
    assert (ours["i2t_r1"], ours["t2i_r1"]) == (theirs["i2t_r1"], theirs["t2i_r1"])


def test_duplicates_tie_exactly_although_a_float32_product_may_differ_in_the_last_bit():
    rng = np.random.default_rng(0)
    z = np.repeat(unit(rng, 1, 511), 1001, axis=0)
    index = np.arange(1001)
    assert ranks.first_hit_rank(z, z, index, index).tolist() == (index + 1).tolist()


@pytest.mark.parametrize("block", [1, 1000, 4321, 1 << 22])
def test_result_does_not_depend_on_the_chunk_size(block):
    rng = np.random.default_rng(1)
    zimg, ztxt = integers(rng, 2, 90, 5), integers(rng, 2, 300, 5)
    gi, gt = np.arange(90), rng.integers(0, 90, 300)
    expected = ranks.first_hit_rank(zimg, ztxt, gi, gt, block=1 << 30)
    np.testing.assert_array_equal(ranks.first_hit_rank(zimg, ztxt, gi, gt, block=block), expected)


def test_the_whole_score_matrix_never_exists():
    rng = np.random.default_rng(1)
    n, m = 3000, 20000  # 229 MiB of float32 scores
    zimg, ztxt = unit(rng, n, 4), unit(rng, m, 4)
    index = rng.integers(0, n, m)
    tracemalloc.start()
    try:
        retrieval.retrieval_metrics(zimg, ztxt, index)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < n * m * 4 / 2


def test_median_rank_is_one_based_and_over_captions():
    zimg = np.eye(3, dtype=np.float32)
    ztxt = np.array([[3, 2, 1], [3, 2, 1], [3, 2, 1], [2, 3, 1]], np.float32)
    metrics = retrieval.retrieval_metrics(zimg, ztxt, np.array([0, 1, 2, 2]))
    assert metrics["median_rank_t2i"] == 2.5  # ranks 1, 2, 3, 3


def test_fewer_candidates_than_k_and_an_image_without_captions():
    zimg = np.eye(3, dtype=np.float32)
    metrics = retrieval.retrieval_metrics(zimg, zimg[:2], np.array([0, 1]))
    assert metrics["i2t_r1"] == metrics["i2t_r10"] == pytest.approx(2 / 3)
    assert metrics["t2i_r10"] == 1.0


@pytest.mark.parametrize("n, index", [(12, [0] * 5 + [1] * 3 + list(range(2, 12))), (4, [0, 0, 3])])
def test_chance_equals_simulated_random_rankings(n, index):
    rng = np.random.default_rng(0)
    index = np.array(index)
    m = len(index)
    keys = [f"{way}_r{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)] + ["median_rank_t2i"]
    draws = {key: [] for key in keys}
    for _ in range(3000):
        # Ranks by sorting random numbers: none of the code under test.
        of_caption = rng.random((n, m)).argsort(1).argsort(1) + 1
        first = np.where(index == np.arange(n)[:, None], of_caption, m + 11).min(1)
        of_image = (rng.random((m, n)).argsort(1).argsort(1) + 1)[np.arange(m), index]
        for k in (1, 5, 10):
            draws[f"i2t_r{k}"].append((first <= k).mean())
            draws[f"t2i_r{k}"].append((of_image <= k).mean())
        draws["median_rank_t2i"].append(np.median(of_image))
    chance = retrieval.chance_metrics(n, index)
    assert chance.keys() == retrieval.retrieval_metrics(np.eye(n), np.eye(n)[index], index).keys()
    for key in keys:
        error = np.std(draws[key]) / np.sqrt(3000)
        assert chance[key] == pytest.approx(np.mean(draws[key]), abs=4 * error + 1e-9), key


def test_chance_of_a_large_set_is_finite():
    chance = retrieval.chance_metrics(5000, np.repeat(np.arange(5000), 5))
    assert chance["i2t_r10"] == pytest.approx(1 - (1 - 5 / 25000) ** 10, rel=1e-3)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "change, message",
    [
        ({"image_index": np.array([0, 1, 3])}, r"image_index\[2\] is 3"),
        ({"image_index": np.array([-1, 1, 2])}, r"image_index\[0\] is -1"),
        ({"image_index": np.array([0, 1])}, "image_index has shape"),
        ({"image_index": np.array([0.0, 1.0, 2.0])}, "float64"),
        ({"zimg": np.zeros((0, 3), np.float32)}, "zimg has shape"),
        ({"ztxt": np.zeros((3, 2), np.float32)}, "ztxt is 2 wide"),
        ({"ztxt": np.full((3, 3), np.nan, np.float32)}, "ztxt is not finite in 3 of 3 rows"),
    ],
)
def test_bad_arrays_are_refused(change, message):
    eye = np.eye(3, dtype=np.float32)
    arrays = {"zimg": eye, "ztxt": eye, "image_index": np.arange(3)} | change
    with pytest.raises(UserError, match=message):
        retrieval.retrieval_metrics(**arrays)
