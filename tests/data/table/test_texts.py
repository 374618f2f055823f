"""The distinct captions of pairs: in order, once, and found again on disk."""

import json

import numpy as np
import pytest

from ape_jax.data.specs import open_pairs
from ape_jax.data.table import sheet
from ape_jax.data.table.texts import Texts
from ape_jax.features.dataset import captions_of

CAPTIONS = [["b", "a"], ["a"], ["c", "b", "ä"], ["a", "d"]]


@pytest.fixture
def pairs(tmp_path):
    lines = []
    for i, captions in enumerate(CAPTIONS):
        (tmp_path / f"{i}.png").write_bytes(b"x")
        lines.append(json.dumps({"image": f"{i}.png", "captions": captions}))
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    return tmp_path / "p.jsonl"


@pytest.mark.parametrize("rows", [None, [3, 0, 2], [1]])
def test_index_is_that_of_a_dictionary(pairs, rows, monkeypatch):
    opened = open_pairs(pairs)
    chosen = opened if rows is None else opened.take(rows)
    found = captions_of(chosen)
    expected = captions_of(list(chosen))
    assert list(found.texts) == list(expected.texts)
    np.testing.assert_array_equal(found.text_index, expected.text_index)
    np.testing.assert_array_equal(found.offsets, expected.offsets)


def test_a_table_on_disk_keeps_its_texts(pairs, monkeypatch):
    monkeypatch.setattr(sheet, "_IN_MEMORY", 0)
    first = np.array(captions_of(open_pairs(pairs)).text_index)
    table = open_pairs(pairs).table
    assert {p.name for p in table.folder.glob("text*")} >= {"texts.arrow", "text_index.npy"}
    (table.folder / "text_index.npy").write_bytes(b"damaged")
    again = captions_of(open_pairs(pairs))
    assert list(again.texts) == ["b", "a", "c", "ä", "d"]
    np.testing.assert_array_equal(first, again.text_index)


@pytest.mark.parametrize("name", ["texts.arrow", "text_index.npy", "text_offsets.npy"])
def test_a_list_of_captions_with_a_flipped_bit_is_made_anew(pairs, name, monkeypatch, capsys):
    monkeypatch.setattr(sheet, "_IN_MEMORY", 0)
    first = captions_of(open_pairs(pairs))
    file = open_pairs(pairs).table.folder / name
    whole = file.read_bytes()
    file.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    again = captions_of(open_pairs(pairs))
    assert f"{name} is damaged; the list of captions is made anew" in capsys.readouterr().err
    assert list(again.texts) == list(first.texts) and file.read_bytes() == whole


def test_texts_are_a_sequence():
    import pyarrow as pa

    texts = Texts([pa.array(["a", "b"]), pa.array(["c"])])
    assert texts == ["a", "b", "c"] and texts[-1] == "c" and texts[1:] == ["b", "c"]
    assert list(texts.take(np.array([2, 0]))) == ["c", "a"]
    with pytest.raises(IndexError):
        texts[3]


@pytest.mark.parametrize("bounds", [(0, 7), (1, 3), (2, 6), (4, 4), (5, 2), (-3, None), (6, 99)])
@pytest.mark.parametrize("step", [None, 1, 2, -1])
def test_a_slice_is_that_of_a_list(bounds, step):
    import pyarrow as pa

    words = list("abcdefg")
    texts = Texts([pa.array(x) for x in (words[:2], words[2:3], [], words[3:])])
    assert texts[slice(*bounds, step)] == words[slice(*bounds, step)]
