"""CCA against scikit-learn's, and regularised against SciPy's generalised eigenproblem."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg
from sklearn.cross_decomposition import CCA

from ape_jax.align import closed_form
from ape_jax.align.closed_form.cca import CCA as CCA_SPEC
from ape_jax.align.closed_form.paired import from_rows
from ape_jax.errors import UserError


def sides(n=300, d=6, k=9, shared=4, seed=0):
    """Two noisy views of a few shared factors that differ in strength."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n, shared)) * np.linspace(3, 0.5, shared)
    x = factors @ rng.normal(size=(shared, d)) + rng.normal(size=(n, d)) + 5
    y = factors @ rng.normal(size=(shared, k)) + rng.normal(size=(n, k)) - 2
    return x, y


def assert_same_columns(ours, theirs, tolerance=1e-4):
    """Up to sign and length, which CCA leaves open."""
    ours, theirs = (z / np.linalg.norm(z, axis=0) for z in (ours, theirs))
    signs = np.sign((ours * theirs).sum(axis=0))
    np.testing.assert_allclose(ours * signs, theirs, atol=tolerance)


def test_without_regulariser_it_is_scikit_learns():
    x, y = sides()
    theirs = CCA(n_components=4, scale=False, max_iter=100_000, tol=1e-16).fit(x, y)
    zx, zy = theirs.transform(x, y)
    ours = closed_form.cca(from_rows(x, y), 0.0, dim=4)
    assert_same_columns(ours.text(x), zx)
    assert_same_columns(ours.image(y), zy)
    expected = [np.corrcoef(zx[:, i], zy[:, i])[0, 1] for i in range(4)]
    np.testing.assert_allclose(ours.correlations[:4], expected, atol=1e-4)


@pytest.mark.parametrize("n, d, k", [(300, 6, 9), (300, 9, 6), (20, 30, 25)])
@pytest.mark.parametrize("l2", [1e-2, 1.0])
def test_regularised_it_solves_the_generalised_eigenproblem(n, d, k, l2):
    x, y = sides(n, d, k)
    x0, y0 = x - x.mean(0), y - y.mean(0)
    xx, yy, xy = x0.T @ x0 / n, y0.T @ y0 / n, x0.T @ y0 / n
    xx += l2 * np.trace(xx) / d * np.eye(d)
    yy += l2 * np.trace(yy) / k * np.eye(k)
    values, vectors = scipy.linalg.eigh(xy @ np.linalg.solve(yy, xy.T), xx)
    ours = closed_form.cca(from_rows(x, y), l2, dim=4)
    np.testing.assert_allclose(ours.correlations[:4], np.sqrt(values[::-1][:4]), atol=1e-6)
    assert_same_columns(ours.text(x), x0 @ vectors[:, ::-1][:, :4])
    kernel = ours.image_kernel
    np.testing.assert_allclose(kernel.T @ yy @ kernel, np.eye(min(d, k)), atol=1e-6)


def with_views():
    """Texts, pairs with four views an image, their covariances, and that of the views."""
    rng = np.random.default_rng(1)
    x, y = sides(200, 6, 9)
    views = y[:, None] + rng.normal(size=(200, 4, 9)) * np.linspace(0.1, 3, 9)
    index = np.arange(200)
    paired = closed_form.Paired(text=x, image=views, text_index=index, image_index=index)
    flat, mean = views.reshape(-1, 9), views.mean(axis=1)
    xx, yy = (np.cov(z, rowvar=False, bias=True) for z in (x, flat))
    xy = (x - x.mean(0)).T @ (mean - mean.mean(0)) / 200
    noise = np.mean([np.cov(v, rowvar=False) for v in views], axis=0)
    return x, paired, (xx, yy, xy), noise


def test_the_covariance_of_views_is_added_to_that_of_the_images():
    """By SciPy's eigenproblem, with sums written out view by view."""
    x, paired, (xx, yy, xy), noise = with_views()
    xx += 0.3 * np.trace(xx) / 6 * np.eye(6)
    yy += 2.0 * noise + 0.1 * np.trace(yy) / 9 * np.eye(9)
    values, vectors = scipy.linalg.eigh(xy @ np.linalg.solve(yy, xy.T), xx)
    ours = closed_form.cca(paired, 0.1, text_l2=0.3, noise=2.0, dim=4)
    np.testing.assert_allclose(ours.correlations[:4], np.sqrt(values[::-1][:4]), atol=1e-6)
    assert_same_columns(ours.text(x), (x - x.mean(0)) @ vectors[:, ::-1][:, :4])


def test_one_view_an_image_has_no_noise(capsys):
    x, y = sides()
    settings = {"width": 4, "l2": 0.1, "power": 0.0, "text_l2": 0.0}
    with_noise, without = (
        CCA_SPEC.solve(from_rows(x, y), noise=noise, **settings) for noise in (5.0, 0.0)
    )
    assert with_noise.record == without.record
    assert "closed.noise: each image has one view" in capsys.readouterr().err


def test_parts_have_no_covariance_with_each_other():
    """By SciPy's eigenproblem, with the blocks written out, each as often as there are parts."""
    x, paired, (xx, yy, xy), noise = with_views()
    xx += 0.3 * np.trace(xx) / 6 * np.eye(6)
    yy, scale = yy + 2.0 * noise, np.trace(yy)
    blocks = scipy.linalg.block_diag(yy[:2, :2], yy[2:5, 2:5], yy[5:, 5:])
    yy = 3 * (blocks + 0.1 * scale / 9 * np.eye(9))
    values, vectors = scipy.linalg.eigh(xy @ np.linalg.solve(yy, xy.T), xx)
    ours = closed_form.cca(paired, 0.1, text_l2=0.3, noise=2.0, dim=4, parts=(2, 3, 4))
    np.testing.assert_allclose(ours.correlations[:4], np.sqrt(values[::-1][:4]), atol=1e-6)
    assert_same_columns(ours.text(x), (x - x.mean(0)) @ vectors[:, ::-1][:, :4])


def test_correlations_of_parts_are_at_most_those_of_the_whole():
    """Also where the parts are the same thing three times, which is the worst there is."""
    x, y = sides(200, 6, 9)
    for image, widths in ((y, (3, 3, 3)), (np.concatenate([y, y, y], axis=1), (9, 9, 9))):
        whole, apart = (
            closed_form.cca(from_rows(x, image), 1e-4, parts=parts).correlations
            for parts in ((), widths)
        )
        assert (apart <= whole + 1e-9).all() and apart[0] > 0.3


def test_one_part_is_the_whole():
    x, y = sides()
    whole, one = (closed_form.cca(from_rows(x, y), 0.1, parts=p) for p in ((), (y.shape[1],)))
    np.testing.assert_array_equal(whole.image_kernel, one.image_kernel)


def test_parts_are_those_of_the_image_vector():
    x, y = sides()
    with pytest.raises(UserError, match="expected widths of sum"):
        closed_form.cca(from_rows(x, y), 0.1, parts=(1, 2))


def test_parts_of_a_run_are_taken_where_they_are_asked_for():
    x, y = sides(200, 6, 9)
    paired = dataclasses.replace(from_rows(x, y), parts=(4, 5))
    settings = {"width": 4, "l2": 0.1, "power": 0.0, "text_l2": 0.0, "noise": 0.0}
    solved = {
        asked: CCA_SPEC.solve(paired, block_diagonal=asked, **settings) for asked in (False, True)
    }
    for asked, parts in ((False, ()), (True, (4, 5))):
        ours = closed_form.cca(from_rows(x, y), 0.1, dim=4, parts=parts)
        kernel = solved[asked].heads["image_head"]["projection"]["kernel"]
        assert_same_columns(kernel, ours.image.kernel)
    assert solved[True].record["parts"] == (4, 5) and "parts" not in solved[False].record


@pytest.mark.parametrize("parts", [(), (9,)])
def test_a_vector_in_one_piece_has_no_blocks(capsys, parts):
    paired = dataclasses.replace(from_rows(*sides()), parts=parts)
    settings = {"width": 4, "l2": 0.1, "power": 0.0, "text_l2": 0.0, "noise": 0.0}
    asked, plain = (
        CCA_SPEC.solve(paired, block_diagonal=value, **settings) for value in (True, False)
    )
    assert asked.record == plain.record
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("closed.block_diagonal: an image's vector")


def test_power_weights_directions_by_their_correlations():
    x, y = sides()
    plain, weighted = (closed_form.cca(from_rows(x, y), 0.1, power=p) for p in (0.0, 2.0))
    np.testing.assert_allclose(weighted.text(x), plain.text(x) * plain.correlations**2, atol=1e-9)
    np.testing.assert_allclose(weighted.image(y), plain.image(y) * plain.correlations**2, atol=1e-9)


def test_the_choice_keeps_few_directions_of_few_shared_factors():
    x, y = sides(n=400, d=40, k=50, shared=3)
    fit = closed_form.cca_cv(from_rows(x, y), dims=[2, 3, 40], powers=[0.0])
    assert fit.dim in (2, 3)
    assert closed_form.cca_cv(from_rows(x, y), dims=[2, 3, 40], powers=[0.0]).l2 == fit.l2


def test_the_choice_is_by_images_that_were_held_out():
    """Noise alone: whatever is chosen, nothing is found; with the fitted rows all would be."""
    rng = np.random.default_rng(0)
    pairs = from_rows(rng.normal(size=(60, 50)), rng.normal(size=(60, 50)))
    fit = closed_form.cca_cv(pairs, l2s=[1e-6, 1e3], dims=[50], powers=[0.0])
    near = closed_form.cca(pairs, 1e-6)
    assert near.correlations[0] > 0.99 and fit.dim == 50


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"l2": -1.0}, "at least 0"),
        ({"l2": 0.0}, "singular"),
        ({"l2": 0.1, "dim": 31}, "write 0 to 30"),
    ],
)
def test_what_cannot_be_solved_is_one_sentence(arguments, words):
    x, y = sides(20, 30, 40)
    with pytest.raises(UserError, match=words):
        closed_form.cca(from_rows(x, y), **arguments)
