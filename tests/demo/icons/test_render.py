"""Rendering: boxes, colours, many processes; and which drawings are alike."""

import io
import signal

import numpy as np
import pytest
from PIL import Image

from ape_jax.demo.icons import alike as icons_alike
from ape_jax.demo.icons import render as icons_render
from ape_jax.errors import UserError

SQUARE = '<path fill="currentColor" d="M0 0h24v24H0z"/>'


def pixels(png):
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGBA", (112, 112))
        return np.asarray(image)


def one(body, **values):
    return icons_render.document({"icons": {"x": {"body": body}}, **values}, "x")


def test_current_colour_is_black_and_the_ground_transparent():
    drawn = pixels(icons_render.render(one(SQUARE, width=24, height=24)))
    assert drawn[56, 56].tolist() == [0, 0, 0, 255]
    assert drawn[0, 0, 3] == 0 and drawn[:, 111, 3].max() == 0  # the margin


def test_colours_stay():
    drawn = pixels(icons_render.render(one('<path fill="#f80" d="M0 0h24v24H0z"/>', width=24)))
    assert drawn[40, 56].tolist() == [255, 136, 0, 255]


def test_a_long_box_is_centred_and_keeps_its_shape():
    drawn = pixels(icons_render.render(one(SQUARE, width=48, height=24)))[..., 3] > 127
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    assert abs(len(rows) - len(columns)) <= 1  # the square in the left half of the box
    assert abs(rows[0] + rows[-1] - 111) <= 1


def test_an_icons_own_box_comes_before_the_sets():
    icon_set = {"icons": {"x": {"body": SQUARE, "width": 24, "left": -4}}, "width": 9, "top": 2}
    # height is the default of 16; the margin is 4 % of the larger side
    assert 'viewBox="-4.96 1.04 25.92 17.92"' in icons_render.document(icon_set, "x")


def test_many_processes_give_what_one_gives_in_order():
    documents = [one(f'<circle cx="8" cy="8" r="{i % 7 + 1}"/>') for i in range(150)]
    documents[70] = "<svg"
    drawn = list(icons_render.render_all(documents, workers=3))
    assert [png for png, _ in drawn] == [icons_render.render(text) for text in documents]
    assert drawn[70] == (b"", b"")
    assert len(set(drawn)) == 8


def test_thumbnail_is_the_mean_of_blocks_on_white():
    png = icons_render.render(one('<circle cx="8" cy="8" r="5" fill-opacity=".6"/>'))
    drawn = pixels(png).astype(float)
    alpha = drawn[..., 3] / 255
    grey = 255 * (1 - alpha)  # black ink
    expected = grey.reshape(16, 7, 16, 7).mean(axis=(1, 3))
    found = np.frombuffer(icons_render.thumbnail(png), np.uint8).reshape(16, 16)
    np.testing.assert_allclose(found, expected, atol=2)


def test_a_worker_that_dies_is_said(monkeypatch):
    popen = icons_render.subprocess.Popen

    def killed(*args, **kwargs):
        process = popen(*args, **kwargs)
        process.send_signal(signal.SIGKILL)
        process.wait()
        return process

    monkeypatch.setattr(icons_render.subprocess, "Popen", killed)
    with pytest.raises(UserError, match=r"ended early \(status -9\); free some memory"):
        list(icons_render.render_all([one(SQUARE)], workers=1))


def test_correlations_are_numpys(rng):
    x, y = (rng.integers(0, 256, (n, 64)).astype(np.uint8) for n in (30, 50))
    found = icons_alike.closest(icons_alike.standardised(x), icons_alike.standardised(y))
    expected = np.corrcoef(x, y)[:30, 30:].max(axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_correlation_in_blocks_is_the_same(rng, monkeypatch):
    x, y = (icons_alike.standardised(rng.integers(0, 9, (n, 16)).astype(np.uint8)) for n in (9, 70))
    whole = icons_alike.closest(x, y)
    monkeypatch.setattr(icons_alike, "_BLOCK", 2)
    np.testing.assert_allclose(icons_alike.closest(x, y), whole, atol=1e-6)
    assert (icons_alike.closest(x, y[:0]) == -1).all()


def test_repeated_within_a_group_only():
    a = np.array([0, 0, 9, 200, 200, 0, 0, 90], np.uint8)
    nearly = a + np.array([0, 1, 0, 0, 0, 1, 0, 0], np.uint8)
    x = icons_alike.standardised(np.stack([a, a[::-1], nearly, a, a]))
    groups = ["g", "g", "g", "h", "g"]
    assert icons_alike.is_repeated(x, groups).tolist() == [False, False, True, False, True]


def test_nothing_on_white_is_empty():
    thumbnails = np.full((3, 256), 255, np.uint8)
    thumbnails[1, 7] = 0
    assert icons_alike.is_empty(icons_alike.standardised(thumbnails)).tolist() == [
        True,
        False,
        True,
    ]
