"""The policy for rows that cannot be used: pairs, labelled images, and how they are counted."""

import collections
import json

import numpy as np
import pytest

from ape_jax.data.labelled import open_labelled
from ape_jax.data.options import Reading
from ape_jax.data.specs import open_pairs
from ape_jax.data.undecodable import undecodable
from ape_jax.errors import UserError
from tests.broken import BROKEN

KINDS = collections.Counter(kind for kind, _ in BROKEN)
DECODED = {"not an image": 1, "damaged image": 1}
SKIP = Reading(on_error="skip", max_skipped=0.5)


def test_every_kind_is_counted_and_said(broken, capsys):
    pairs = open_pairs(broken, reading=SKIP)
    assert pairs.problems.counts() == KINDS - collections.Counter(DECODED)
    assert (
        len(pairs) == 26 and "left out 4 of 32 rows and 2 of 28 images" in capsys.readouterr().err
    )
    whole = pairs.without(dict(undecodable(pairs.image_ref, range(26), "decoding")))
    assert len(whole) == 24 and whole.problems.counts() == KINDS
    assert len(whole.take(np.arange(3)).problems) == len(BROKEN)
    assert [p.kind for p in whole.problems.first()].count("empty caption") == 1
    assert len(whole.problems.first(2)) == len(BROKEN)


@pytest.mark.parametrize(("share", "stops"), [(4 / 32 + 2 / 28 + 1e-9, False), (0.19, True)])
def test_shares_of_rows_and_images_are_added_up(broken, share, stops):
    reading = Reading(on_error="skip", max_skipped=share)
    if not stops:
        assert len(open_pairs(broken, reading=reading)) == 26
        return
    with pytest.raises(UserError, match=r"data\.max_skipped=0\.19"):
        open_pairs(broken, reading=reading)


def test_rows_of_captions_are_counted_and_not_images(tiny, tmp_path):
    rows = [f"{tiny / 'red-bar.png'},caption {i}\n" for i in range(90)]
    (tmp_path / "p.csv").write_text(
        "image,caption\n" + "".join(rows) + f"{tiny / 'red-bar.png'},\n"
    )
    pairs = open_pairs(tmp_path / "p.csv", reading=Reading(on_error="skip"))
    assert (len(pairs), pairs.problems.rows, pairs.problems.pairs) == (1, 91, 1)


def test_labelled_images_follow_the_same_rule(broken, capsys):
    names = ("gone.png", "empty.png", "text.png", "red-bar.png", "red-circle.png")
    lines = [{"image": name, "label": name[0]} for name in names]
    lines += [{"image": "red-bar.png", "label": None}, {"image": None, "label": "r"}]
    path = broken.parent / "labelled.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError):
        open_labelled(path)
    with pytest.raises(UserError, match="max_skipped"):
        open_labelled(path, reading=Reading(on_error="skip"))
    labelled = open_labelled(path, reading=Reading(on_error="skip", max_skipped=0.9))
    kinds = {"missing image": 1, "empty image": 1, "no label": 1, "no image": 1}
    assert labelled.problems.counts() == kinds and len(labelled) == 3
    assert "left out 4 of 7 images" in capsys.readouterr().err
    good = labelled.without(dict(undecodable(labelled.image_ref, range(3), "decoding")))
    assert len(good) == 2 and good.problems.counts() == {**kinds, "not an image": 1}
    assert set(labelled.classnames) == {"r", "t"}
