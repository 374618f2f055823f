"""Negative captions in files of pairs: which column they are, and what becomes of them."""

import csv
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from ape_jax.commands import pairs as command
from ape_jax.data import columns, in_memory
from ape_jax.data.options import Reading
from ape_jax.data.pairs import Pair, Pairs
from ape_jax.data.specs import open_pairs
from ape_jax.data.words import leave_out_words
from ape_jax.errors import UserError

ROWS = [
    {"image": "a.png", "captions": ["a cat"], "negatives": ["a dog", " a cow "]},
    {"image": "b.png", "captions": ["a dog"], "negatives": "a cat"},
    {"image": "c.png", "captions": ["a hen"], "negatives": None},
    {"image": "a.png", "captions": ["my cat"], "negatives": ["a dog", "a cat"]},
]
WANTED = [("a dog", "a cow", "a cat"), ("a cat",), ()]


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate("abc"):
        Image.new("RGB", (4, 4), (60 * i, 0, 0)).save(tmp_path / f"{name}.png")
    return tmp_path


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif path.suffix == ".parquet":
        lists = [
            {**row, "negatives": [x] if isinstance(x := row["negatives"], str) else x}
            for row in rows
        ]
        pd.DataFrame(lists).to_parquet(path)
    else:
        with path.open("w") as file:
            made = csv.DictWriter(file, list(rows[0]), delimiter="\t")
            made.writeheader()
            for row in rows:
                texts = {k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()}
                made.writerow({k: "" if v is None else v for k, v in texts.items()})
    return str(path)


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.tsv", "pairs.parquet"])
def test_every_table_holds_them(folder, name):
    pairs = open_pairs(write(folder / name, ROWS))
    assert [pair.negatives for pair in pairs] == [pairs[i].negatives for i in range(3)] == WANTED
    assert pairs.num_negatives == 4 and pairs.num_captions == 4
    assert pairs.take([1]).num_negatives == 1


def test_a_column_is_found_by_its_name_or_named(folder, capsys):
    found = columns.choose(["image", "caption", "Hard Negatives", "n"], {}, False, "p")
    assert found.negatives == ("Hard Negatives",) and found.left == ("n",)
    rows = [{**row, "wrong": row["negatives"]} for row in ROWS]
    for row in rows:
        del row["negatives"]
    spec = write(folder / "named.jsonl", rows)
    assert open_pairs(spec).num_negatives == 0
    assert "not read: 'wrong'" in capsys.readouterr().err
    named = Reading(columns={"negatives": ("wrong",)})
    assert open_pairs(spec, key="pairs", reading=named).num_negatives == 4
    with pytest.raises(UserError, match=r"no column 'absent', which data\.columns names"):
        open_pairs(spec, key="pairs", reading=Reading(columns={"negatives": ("absent",)}))


def test_a_cell_that_is_no_text_is_named(folder):
    spec = write(folder / "bad.jsonl", [*ROWS[:2], {**ROWS[2], "negatives": [3]}])
    with pytest.raises(UserError, match=r"bad\.jsonl:3.*in 'negatives', a caption is 3"):
        open_pairs(spec)


def test_they_count_in_the_digest_and_pairs_without_have_the_one_they_had(folder):
    plain = [{k: v for k, v in row.items() if k != "negatives"} for row in ROWS]
    without = open_pairs(write(folder / "without.jsonl", plain)).digest
    empty = [{**row, "negatives": []} for row in ROWS]
    assert open_pairs(write(folder / "empty.jsonl", empty)).digest == without
    assert open_pairs(write(folder / "with.jsonl", ROWS)).digest != without


def test_texts_of_both_are_listed_once_and_own_captions_are_left_out(folder, capsys):
    pairs = open_pairs(write(folder / "pairs.jsonl", ROWS))
    plain, both = pairs.caption_table(), pairs.caption_table(negatives=True)
    texts = list(both.texts)
    assert texts == [*plain.texts, "a cow"] and plain.negatives is None
    np.testing.assert_array_equal(both.text_index, plain.text_index)
    found = both.negatives
    of_image = np.split(found.text_index, found.offsets[1:-1])
    assert [[texts[i] for i in some] for some in of_image] == [["a dog", "a cow"], ["a cat"], []]
    assert "1 of 4 negative captions are captions of their own images" in capsys.readouterr().err


def test_pairs_in_memory_keep_them(folder, capsys):
    paths = [str(folder / f"{name}.png") for name in "abc"]
    rows = {"image": paths, "caption": list("xyz"), "negatives": [["p", "q"], None, "r"]}
    kinds = [
        rows,
        pd.DataFrame(rows),
        [dict(zip(rows, row)) for row in zip(*rows.values())],
        pa.table({**rows, "negatives": [["p", "q"], None, ["r"]]}),
    ]
    for i, pairs in enumerate(kinds):
        spec = in_memory.as_spec(pairs, folder / f"made{i}", key="pairs")
        assert [pair.negatives for pair in open_pairs(spec)] == [("p", "q"), (), ("r",)]
    assert "negative captions from 'negatives'" in capsys.readouterr().err
    plain = in_memory.as_spec({"image": paths, "caption": list("xyz")}, folder / "plain", key="p")
    assert pa.parquet.read_schema(plain).names == ["image", "captions"]


def test_left_out_words_leave_them_alone(folder):
    pair = Pair(open_pairs(write(folder / "p.jsonl", ROWS))[0].image, ("a b c d",), "1", ("no",))
    assert leave_out_words(Pairs.of([pair]), 3, 0.5, 0)[0].negatives == ("no",)


def test_the_command_counts_them(folder):
    record, text = command.look(
        command.Asked(data=write(folder / "p.jsonl", ROWS), html="", text="", verify=False)
    )
    assert record["negatives"] == 4 and "negative captions" in text
