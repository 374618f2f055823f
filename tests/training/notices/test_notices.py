"""Training that learns nothing is noticed while it runs, and what was noticed is kept."""

import json

import numpy as np
import pytest

from ape_jax import config as config_lib
from ape_jax import pages
from ape_jax.errors import UserError
from ape_jax.training import loop
from ape_jax.training.notices import record
from ape_jax.training.notices.record import Notice, Notices

RNG = np.random.default_rng(0)
HIDDEN, COUNTS = RNG.normal(size=(64, 4)), RNG.integers(2, 5, 64)
IMAGE = (HIDDEN @ RNG.normal(size=(4, 12))).astype(np.float32)
TEXT = (np.repeat(HIDDEN, COUNTS, axis=0) @ RNG.normal(size=(4, 6))).astype(np.float32)
OFFSETS = np.concatenate([[0], np.cumsum(COUNTS)])
KEYS = {
    "image.tower": "features:12", "text.tower": "features:6", "image.dtype": "float32",
    "text.dtype": "float32", "text.head.depth": 2, "text.head.width": 32, "train.batch": 16,
    "train.steps": 24, "train.log_every": 8, "train.checkpoint_every": 8, "optim.lr": 3e-3,
}  # fmt: skip
CLOSED = {**{k: v for k, v in KEYS.items() if not k.startswith(("train", "optim", "text.head"))}}


def write(folder, image=IMAGE, text=TEXT):
    np.savez(folder / "x.npz", image=image, text=text, text_offsets=OFFSETS)
    return f"features:{folder / 'x.npz'}"


def run(folder, keys, image=IMAGE, text=TEXT):
    flat = config_lib.flatten(config_lib.default()) | {"data.pairs": write(folder, image, text)}
    return loop.train_and_evaluate(config_lib.resolve(flat | keys), folder / "run")


HUGE = {"optim.lr": 10.0, "optim.warmup": 0}
CASES = {
    "images of zeros": ({"image": IMAGE * 0}, {}, "image features are|image collapse|guessing"),
    "one image": ({"image": np.tile(IMAGE[:1], (64, 1))}, {}, "image features|image collapse"),
    "one caption": ({"text": np.tile(TEXT[:1], (len(TEXT), 1))}, {}, "text features|text collapse"),
    "1e30": ({"text": TEXT * np.float32(1e30)}, {}, "text features|text collapse|no gradient"),
    "a rate of 10": ({}, HUGE, "scale near zero|loss of guessing"),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_said_once_and_kept(tmp_path, capsys, name):
    features, keys, expected = CASES[name]
    summary = run(tmp_path, KEYS | keys, **features)
    kinds = {notice["kind"] for notice in summary["notices"]}
    for words in expected.split("|"):
        assert any(words.removesuffix(" are") in kind for kind in kinds), kinds
    lines = [line for line in capsys.readouterr().err.splitlines() if "notice: " in line]
    assert len(lines) == len(summary["notices"])
    kept = record.read(tmp_path / "run")
    assert [vars(notice) for notice in kept] == summary["notices"]


def test_a_healthy_run_says_nothing(tmp_path, capsys):
    summary = run(tmp_path, KEYS | {"train.steps": 120})
    assert "notices" not in summary and "captions_cut" not in summary
    assert "notice" not in capsys.readouterr().err
    assert not (tmp_path / "run" / record.FILE).exists()


def test_images_that_are_standardised_may_be_of_any_size(tmp_path):
    assert "notices" not in run(tmp_path, KEYS, image=IMAGE * np.float32(1e25))


def test_the_spread_of_embeddings_is_a_curve(tmp_path):
    run(tmp_path, KEYS)
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    line = json.loads(lines[0])
    assert 0.01 < line["train/image_spread"] <= 1 and 0.01 < line["train/text_spread"] <= 1


def test_a_loss_that_is_not_finite_is_said_of_the_features(tmp_path):
    keys = {key: value for key, value in KEYS.items() if not key.startswith("text.head")}
    keys |= {"image.head.name": "linear", "text.head.name": "linear"}
    with pytest.raises(UserError, match=r"the loss is nan .* caption features .* scale them down"):
        run(tmp_path, keys, text=TEXT / np.abs(TEXT).max() * np.float32(3e38))


@pytest.mark.parametrize("l2", [0.0, 3.0])
@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize("method", ["cca", "ridge", "ridge_text", "procrustes", "asif"])
def test_a_closed_form_says_which_side_does_not_vary(tmp_path, method, side, l2):
    keys = CLOSED | {"method": method}
    if l2 and method in ("procrustes", "asif"):
        return
    keys |= {"closed.l2": l2} if l2 else {}
    features = {side: np.tile({"image": IMAGE, "text": TEXT}[side][:1], (1, 1))}
    features[side] = np.repeat(features[side], 64 if side == "image" else len(TEXT), axis=0)
    what = "images" if side == "image" else "captions"
    with pytest.raises(UserError, match=f"the {what} of these 64 pairs all have the same vector"):
        run(tmp_path, keys, **features)


def test_a_notice_that_was_said_is_not_said_again(tmp_path, capsys):
    first = Notices(tmp_path)
    first.add([Notice(step=s, kind=f"kind {s}", message=f"m{s}") for s in (0, 4, 9)])
    again = Notices(tmp_path, 6)  # What came after its step is trained again.
    assert [notice.step for notice in again.found] == [4]
    again.add([Notice(step=7, kind="kind 4", message="x"), Notice(step=9, kind="z", message="y")])
    assert [notice.step for notice in record.read(tmp_path)] == [4, 9]
    assert capsys.readouterr().err.splitlines() == [f"notice: {m}" for m in ("m0", "m4", "m9", "y")]


def test_damaged_lines_are_left_out(tmp_path):
    good = '{"step": 3, "kind": "k", "message": "m"}'
    deep = "[" * 100_000
    text = "\n".join([good, "{", deep, '{"step": "x"}', "[]", '{"step": null, "kind": 1}', ""])
    (tmp_path / record.FILE).write_text(text)
    assert record.read(tmp_path) == [Notice(step=3, kind="k", message="m")]
    (tmp_path / record.FILE).write_bytes(b"\xff\xfe")
    assert record.read(tmp_path) == []


def test_the_report_shows_them(tmp_path):
    run(tmp_path, KEYS, image=IMAGE * 0)
    page = pages.write(tmp_path / "run").read_text()
    assert "What was noticed" in page and "are all zero" in page
