"""CCA that matches unpaired texts and images, against its definition in NumPy and SciPy."""

import numpy as np
import pytest
import scipy.linalg
import scipy.special

from ape_jax.align.closed_form import Paired, Unmatched, cca, cca_matched, from_rows, matched
from ape_jax.errors import UserError

D, K, L2 = 5, 7, 0.3


def world(n=400, noise=0.3, seed=0):
    """Texts and images of a shared cause, the first 25 of them as pairs."""
    rng = np.random.default_rng(seed)
    cause = rng.normal(size=(n, 4)) * [3, 2, 1.5, 1]
    x = cause @ rng.normal(size=(4, D)) + noise * rng.normal(size=(n, D)) + 1
    y = cause @ rng.normal(size=(4, K)) + noise * rng.normal(size=(n, K)) - 2
    return x, y


def plan(similarity, eps=0.05):
    u, v = np.zeros(len(similarity)), np.zeros(similarity.shape[1])
    logits = similarity / eps
    for _ in range(100):
        u = -np.log(len(u)) - scipy.special.logsumexp(logits + v, axis=1)
        v = -np.log(len(v)) - scipy.special.logsumexp(logits + u[:, None], axis=0)
    found = np.exp(logits + u[:, None] + v)
    return found / found.sum()


def reference(few, rest, weight, rounds, power=1.0):
    """Directions by a generalised eigenproblem, in the order of the docstring's sentences."""
    (x, y), (u, v) = few, rest
    texts, images = np.concatenate([x, u]), np.concatenate([y, v])
    xx, yy = np.cov(texts.T, bias=True), np.cov(images.T, bias=True)
    known = (x - x.mean(0)).T @ (y - y.mean(0)) / len(x)
    ridged = [s + L2 * np.trace(s) / len(s) * np.eye(len(s)) for s in (xx, yy)]
    xy = known
    for number in range(rounds + 1):
        roots = [np.linalg.inv(scipy.linalg.sqrtm(s).real) for s in ridged]
        left, values, right = np.linalg.svd(roots[0] @ xy @ roots[1])
        r = len(values)
        a = roots[0] @ left[:, :r] * values**power
        b = roots[1] @ right.T[:, :r] * values**power
        if number == rounds:
            return values, (a, b)
        z = [side / np.linalg.norm(side, axis=1, keepdims=True)
             for side in ((u - texts.mean(0)) @ a, (v - images.mean(0)) @ b)]  # fmt: skip
        p = plan(z[0] @ z[1].T)
        mu, mv = p.sum(1) @ u, p.sum(0) @ v
        xy = (known + weight * (u - mu).T @ p @ (v - mv)) / (1 + weight)


def split(x, y, turned=True):
    order = np.random.default_rng(1).permutation(len(x) - 25) if turned else np.arange(len(x) - 25)
    return (x[:25], y[:25]), (x[25:], y[25:][order])


def solve(few, rest, **how):
    others = Unmatched(text=rest[0], image=rest[1][:, None])
    return cca_matched(from_rows(*few), others, L2, power=1.0, **how)


@pytest.mark.parametrize("weight, rounds", [(1.0, 1), (0.5, 3), (1.0, 0)])
def test_equals_the_definition(weight, rounds):
    few, rest = split(*world())
    fit = solve(few, rest, weight=weight, rounds=rounds)
    values, maps = reference(few, rest, weight, rounds)
    np.testing.assert_allclose(fit.correlations, values, atol=1e-5)
    for ours, theirs in zip((fit.text.kernel, fit.image.kernel), maps):
        sign = np.sign((ours * theirs).sum(axis=0))
        np.testing.assert_allclose(ours * sign, theirs, atol=1e-4 * np.abs(theirs).max())


def test_partners_among_the_unpaired_improve_the_retrieval_of_others():
    """Where causes are no Gaussians, whose rotations look alike, and pairs are few."""
    gains = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        cause = rng.standard_t(3, size=(900, 16))
        x, y = (cause @ rng.normal(size=(16, 24)) / 4 for _ in range(2))
        x, y = (side + 0.3 * rng.normal(size=side.shape) for side in (x, y))
        order = np.random.default_rng(1).permutation(576)
        others = Unmatched(text=x[24:600], image=y[24:600][order][:, None])
        few = from_rows(x[:24], y[:24])
        fits = cca(few, 0.1, power=1.0), cca_matched(few, others, 0.1, power=1.0, rounds=3)
        found = []
        for fit in fits:
            z = [fit.text(x[600:]), fit.image(y[600:])]
            z = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in z]
            found.append(((z[0] @ z[1].T).argmax(axis=1) == np.arange(300)).mean())
        gains.append(found[1] - found[0])
    assert np.mean(gains) > 0.05


def test_the_order_of_unpaired_rows_does_not_matter():
    x, y = world()
    one, other = solve(*split(x, y)), solve(*split(x, y, turned=False))
    np.testing.assert_allclose(one.correlations, other.correlations, atol=1e-5)


def test_views_and_standardisation_are_those_of_the_pairs():
    (x, y), (u, v) = split(*world())
    mean, std = y.mean(0), y.std(0)
    index = np.arange(len(x))
    pairs = Paired(
        text=x, image=y[:, None], text_index=index, image_index=index, mean=mean, std=std
    )
    others = Unmatched(text=u, image=np.stack([v, v], axis=1))
    fit = cca_matched(pairs, others, L2, power=1.0)
    expected = solve((x, (y - mean) / std), (u, (v - mean) / std))
    np.testing.assert_allclose(fit.correlations, expected.correlations, atol=1e-6)


def test_of_many_a_sample_by_seed_is_matched(monkeypatch):
    monkeypatch.setattr(matched, "MOST", 100)
    few, rest = split(*world())
    one, again, other = (solve(few, rest, seed=seed).correlations for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-6


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"weight": -1.0}, "weight"),
        ({"eps": 0.0}, "eps"),
        ({"rounds": -1}, "rounds"),
        ({"dim": 6}, "dim is 6"),
    ],
)
def test_what_cannot_be_is_refused(wrong, words):
    few, rest = split(*world(60))
    with pytest.raises(UserError, match=words):
        solve(few, rest, **wrong)


def test_other_widths_are_refused():
    few, rest = split(*world(60))
    with pytest.raises(UserError, match="wide"):
        solve(few, (rest[1], rest[0]))
