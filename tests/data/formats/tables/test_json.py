"""JSON in the shapes that people and pandas write, one and the same rows in each."""

import gzip
import json

import pandas as pd
import pyarrow as pa
import pytest

from ape_jax.data.formats.tables import json_documents, json_text
from ape_jax.data.formats.tables.json import read_json
from ape_jax.errors import UserError

ROWS = [
    {"image": "a.png", "caption": 'a "cat"'},
    {"image": "sub/b.png", "caption": "schön\n2"},
    {"image": "c.png", "caption": "[c]"},
]
FRAME = pd.DataFrame(ROWS)


@pytest.fixture
def at(tmp_path, read):
    def read_text(text, name="p.json", encoding="utf-8", **asked):
        data = text if isinstance(text, bytes) else text.encode(encoding)
        (tmp_path / name).write_bytes(data)
        return read(read_json, tmp_path / name, **asked)

    return read_text


def lines(rows=ROWS, **options):
    return "\n".join(json.dumps(row, **options) for row in rows)


SHAPES = {
    "lines": lines(),
    "lines, one with an end": lines() + "\n\n",
    "pretty-printed records": lines(indent=2),
    "records behind commas": ",\n".join(json.dumps(row, indent=1) for row in ROWS),
    "lines with commas": ",\n".join(map(json.dumps, ROWS)),
    "list": json.dumps(ROWS),
    "pretty-printed list": json.dumps(ROWS, indent=4, ensure_ascii=False),
    "a list a key": json.dumps({"info": {"version": 1}, "data": ROWS, "n": [1, 2]}),
    "lists of columns": json.dumps(FRAME.to_dict("list")),
    **{
        f"pandas {orient}": FRAME.to_json(orient=orient)
        for orient in ("columns", "records", "split", "index")
    },
    "pandas lines": FRAME.to_json(orient="records", lines=True),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["p.json", "p.jsonl"])
def test_every_shape_gives_the_same_rows(shape, name, at):
    found = at(SHAPES[shape], name)
    assert found.fields == ROWS and not found.broken


def test_pandas_table_has_its_index_beside(at):
    found = at(FRAME.to_json(orient="table"))
    assert [{k: row[k] for k in ("image", "caption")} for row in found.fields] == ROWS


@pytest.mark.parametrize(
    ("ending", "compress"),
    [
        (".gz", gzip.compress),
        (".zst", lambda data: pa.Codec("zstd").compress(data, asbytes=True)),
    ],
)
def test_compressed(ending, compress, at):
    assert at(compress(lines().encode()), f"p.jsonl{ending}").fields == ROWS
    assert at(compress(json.dumps(ROWS).encode()), f"p.json{ending}").fields == ROWS


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings(encoding, at):
    assert at(lines(ensure_ascii=False), "p.jsonl", encoding).fields == ROWS
    assert at(json.dumps(ROWS, ensure_ascii=False), "p.json", encoding).fields == ROWS


def test_images_with_their_captions(at):
    found = at(json.dumps({"a.png": ["x", "y"], "b.png": "z", "c.png": {"caption": "q"}}))
    assert found.fields == [
        {"image": "a.png", "captions": ["x", "y"]},
        {"image": "b.png", "captions": "z"},
        {"image": "c.png", "caption": "q"},
    ]


def test_records_under_ids(at):
    found = at(json.dumps({"k1": ROWS[0], "k2": ROWS[1]}))
    assert [row["id"] for row in found.fields] == ["k1", "k2"]


def test_one_record(at):
    assert at(json.dumps({**ROWS[0], "captions": ["a"]})).fields == [{**ROWS[0], "captions": ["a"]}]


def test_several_lists_are_all_read_or_one_by_its_name(at):
    text = json.dumps({"train": ROWS, "val": ROWS[:1], "categories": [{"name": "x"}]})
    found = at(text)
    assert found.fields == [*ROWS, ROWS[0]] and found.rows[-1].at == "val[0]"
    assert "'train', 'val'" in found.said[0] and "categories" in found.said[1]
    assert at(text, part="val").fields == ROWS[:1]
    with pytest.raises(UserError, match="no list 'test'; write one of"):
        at(text, part="test")


def test_a_damaged_line_costs_itself_only(at):
    text = lines(ROWS[:1]) + '\n{"image": "x.png", "capt\n[1]\n' + lines(ROWS[1:])
    found = at(text, "p.jsonl")
    assert found.fields == ROWS and [row.at for row in found.broken] == ["2", "3"]


def test_a_damaged_first_line_is_a_line(at):
    found = at('{"image": "x.png", "capt\n' + lines(), "p.jsonl")
    assert found.fields == ROWS and [row.at for row in found.broken] == ["1"]


def test_a_damaged_record_of_several_lines_costs_itself_only(at):
    text = '{"image": "x"\n "caption": "y"}\n' + lines(indent=1)
    found = at(text, "p.jsonl")
    assert found.fields == ROWS and [row.at for row in found.broken] == ["1"]


def test_a_key_that_is_there_twice(at):
    found = at('{"image": "a", "caption": "x", "caption": "y"}\n' + lines(), "p.jsonl")
    assert found.broken[0].reason.startswith("the key 'caption' is there twice")


def test_numbers_that_are_none(at):
    found = at('{"image": "a", "caption": NaN, "x": -Infinity}\n' + lines(), "p.jsonl")
    assert found.fields[0]["caption"] != found.fields[0]["caption"]


def test_numbers_and_names_cut_by_the_ends_of_chunks(tmp_path, monkeypatch):
    rows = [{"n": i * 1234567, "x": i / 3, "t": [True, None, "\u00e4\\u"]} for i in range(50)]
    data = json.dumps(rows).encode()
    for size in (1, 2, 3, 7):
        text = json_text.JsonText(iter([data[i : i + size] for i in range(0, len(data), size)]))
        assert list(text.items()) == rows and not text.peek()


def test_columns_above_the_bound_say_what_to_write(at, monkeypatch):
    monkeypatch.setattr(json_documents, "MAX_COLUMNS_BYTES", 50)
    with pytest.raises(UserError, match="lines=True"):
        at(FRAME.to_json())


@pytest.mark.parametrize("text", ["", "  \n", "[]", "{}"])
def test_nothing(text, at):
    assert not at(text).rows
