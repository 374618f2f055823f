"""CSV and TSV as people have them, against what pandas reads where it reads the same."""

import bz2
import csv
import gzip
import itertools
import lzma

import pandas as pd
import pyarrow as pa
import pytest

from ape_jax.data.formats.tables.csv import read_csv
from ape_jax.data.formats.tables.opened import read_spreadsheet
from ape_jax.data.rows import Ask
from ape_jax.errors import UserError

TABLE = pd.DataFrame(
    {
        "image": ["a.png", "sub/b.png", "c d.png", "e.png"],
        "caption": ['a cat, "big"', "zwei\nZeilen; schön", "", "tab\tand | bar"],
        "id": ["1", "2", "3", "4"],
    }
)


@pytest.fixture
def at(tmp_path, read):
    def read_text(text, name="p.csv", encoding="utf-8", **asked):
        data = text if isinstance(text, bytes) else text.encode(encoding)
        (tmp_path / name).write_bytes(data)
        return read(read_csv, tmp_path / name, **asked)

    return read_text


SEPARATORS = [(",", "p.csv"), (";", "p.csv"), ("\t", "p.csv"), ("|", "p.csv"), ("\t", "p.tsv")]


@pytest.mark.parametrize(
    ("separator", "name", "encoding", "quoting"),
    [
        (*separator, encoding, quoting)
        for separator, encoding, quoting in itertools.product(
            SEPARATORS, ["utf-8", "utf-8-sig", "utf-16"], [csv.QUOTE_MINIMAL, csv.QUOTE_ALL]
        )
    ],
)
def test_rows_are_those_of_pandas(separator, name, encoding, quoting, tmp_path, read):
    path = tmp_path / name
    TABLE.to_csv(path, sep=separator, encoding=encoding, quoting=quoting, index=False)
    expected = pd.read_csv(path, sep=separator, encoding=encoding, dtype=str, keep_default_na=False)
    found = read(read_csv, path)
    assert found.fields == expected.to_dict("records") and not found.broken
    assert (f"{path}: cells are separated by {separator!r}" in found.said) == (
        separator != ("\t" if name == "p.tsv" else ",")
    )


@pytest.mark.parametrize(
    ("ending", "compress"),
    [
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
        (".zst", lambda data: pa.Codec("zstd").compress(data, asbytes=True)),
        ("", gzip.compress),
    ],
)
def test_compressed_by_content(ending, compress, at):
    found = at(compress(TABLE.to_csv(index=False).encode()), f"p.csv{ending}")
    assert found.fields == TABLE.to_dict("records")


def test_excels_line_settles_the_separator(at):
    found = at("sep=;\r\nimage;caption\r\na.png;1,5 m, or so\r\n")
    assert found.fields == [{"image": "a.png", "caption": "1,5 m, or so"}]
    assert found.rows[0].at == "3"


def test_a_space_behind_the_separator_is_no_part_of_a_cell(at):
    assert at('image, caption\na.png, "a, b"\n').fields == [{"image": "a.png", "caption": "a, b"}]


def test_line_ends_of_old_macs(at):
    assert len(at("image,caption\ra.png,a\rb.png,b\r").rows) == 2


def test_one_line_without_an_end(at):
    assert at("image;caption\na.png;x").fields == [{"image": "a.png", "caption": "x"}]


def test_captions_that_begin_with_a_quote_in_tsv(at):
    text = 'image\tcaption\nr.png\t"red is all\nb.png\tthe blue\ng.png\tthe green"\nh.png\t"x" y\n'
    found = at(text, "p.tsv")
    captions = ['"red is all', "the blue", 'the green"', '"x" y']
    assert [row["caption"] for row in found.fields] == captions
    assert any("quotes are characters" in line for line in found.said)


def test_a_quotation_in_tsv_is_no_quoting(at):
    found = at('image\tcaption\na.png\t"Hello"\nb.png\tb\n', "p.tsv")
    assert found.fields[0]["caption"] == '"Hello"'


def test_the_first_quote_of_a_tsv_may_come_late(at):
    rows = "".join(f"{i}.png\tcaption {i} of many words to fill the file\n" for i in range(40_000))
    found = at(f'image\tcaption\n{rows}a.png\t"a ""big"" cat"\nb.png\tb\n', "p.tsv")
    assert found.fields[-2:] == [
        {"image": "a.png", "caption": 'a "big" cat'},
        {"image": "b.png", "caption": "b"},
    ]
    assert found.rows[-1].at == "40003"


def test_a_quote_that_is_not_closed_costs_its_own_row_only(at):
    found = at('image,caption\na.png,"the cat\nb.png,a dog\nc.png,"a bird"\nd.png,"last\n')
    assert [(row.at, row.fields["image"]) for row in found.rows] == [("3", "b.png"), ("4", "c.png")]
    assert [row.at for row in found.broken] == ["2", "5"]


def test_a_quote_that_closes_lines_later_is_named_with_its_line(at):
    found = at('image,caption\na.png,"the cat\nb.png,a dog\nc.png,a "\nd.png,d\n')
    assert [row.fields["image"] for row in found.rows] == ["b.png", "c.png", "d.png"]
    assert found.broken[0].at == "2" and "line 3" in found.broken[0].reason


def test_cells_of_several_lines_are_cells(at):
    found = at('image,caption\na.png,"One, two,\n\nthree, and four"\nb.png,"x\ny"\n')
    assert [row["caption"] for row in found.fields] == ["One, two,\n\nthree, and four", "x\ny"]
    assert [row.at for row in found.rows] == ["2", "5"]


def test_cells_over_the_ends_of_blocks(at):
    long = "many words, and a line\n" * 100_000
    found = at(f'image,caption\na.png,"{long}"\nb.png,b\n')
    assert [len(row["caption"]) for row in found.fields] == [len(long), 1] and not found.broken


def test_backslashes_in_front_of_quotes(at):
    found = at('image,caption\na.png,"a \\"big\\" cat"\n')
    assert found.fields[0]["caption"] == 'a "big" cat' and "backslash" in found.said[0]


@pytest.mark.parametrize(
    ("text", "wanted", "expected", "said"),
    [
        ("a.png,a cat\nb.png,a dog\n", "captions", {"image": "a.png", "caption": "a cat"}, "1"),
        ("the cat\tx/a.jpg\n", "captions", {"image": "x/a.jpg", "caption": "the cat"}, "column 2"),
        (
            "a.png,train,a cat,a tabby cat\n",
            "captions",
            {"image": "a.png", "2": "train", "captions": ["a cat", "a tabby cat"]},
            "2 are left out",
        ),
        ("a.png,3\n", "label", {"image": "a.png", "label": "3"}, "label"),
    ],
)
def test_without_a_header(text, wanted, expected, said, at):
    found = at(text, wanted=wanted)
    assert {name: found.fields[0][name] for name in expected} == expected
    assert any("there is no header" in line and said in line for line in found.said)


def test_columns_without_a_header_by_their_numbers(at):
    found = at("a.png,x,a cat\n", columns={"image": ("1",), "captions": ("3",)})
    assert found.fields == [{"1": "a.png", "2": "x", "3": "a cat"}]


def test_a_header_of_unusual_names_is_a_header(at):
    assert at("bild,wort\na.png,x\n").columns == ("bild", "wort")


def test_pandas_index_and_columns_of_one_name(at):
    found = at(",image,caption,n,n\n0,a.png,x,1,2\n")
    assert found.fields == [{"": "0", "image": "a.png", "caption": "x", "n": "1", "n_2": "2"}]


def test_windows_1252_is_found_and_said(at):
    found = at("image,caption\na.png,un café\nb.png,“ja”\n", encoding="cp1252")
    assert [row["caption"] for row in found.fields] == ["un café", "“ja”"]
    assert any("Windows-1252" in line and ":2:" in line and "café" in line for line in found.said)


def test_utf16_without_a_mark(at):
    found = at("image,caption\na.png,кошка\n", encoding="utf-16-le")
    assert found.fields == [{"image": "a.png", "caption": "кошка"}]
    assert any("UTF-16" in line for line in found.said)


def test_one_wrong_byte_in_utf8_is_one_row(at):
    found = at("image,caption\na.png,Käse\n".encode() + b"b.png,caf\xe9\nc.png,c\n")
    assert [row["image"] for row in found.fields] == ["a.png", "c.png"]
    assert [(row.at, "UTF-8" in row.reason) for row in found.broken] == [("3", True)]


def test_rows_of_other_widths_are_broken_and_reading_goes_on(at):
    found = at("image,caption\na.png\nb.png,b,\nc.png,x,y\n,,\n,\nd.png,d\n")
    assert [row["image"] for row in found.fields] == ["b.png", "d.png"]
    assert [(row.at, row.reason[:13]) for row in found.broken] == [
        ("2", "found 1 cells"),
        ("4", "found 3 cells"),
    ]


def test_a_zero_byte_is_one_row(at):
    found = at("image,caption\na.png,a\0b\nb.png,b\n")
    assert [row.at for row in found.broken] == ["2"] and len(found.rows) == 1


def test_a_line_above_the_bound_is_one_row(at):
    found = at(b"image,caption\na.png," + b"x" * (11 * 2**20) + b"\nb.png,b\n")
    assert [row.at for row in found.broken] == ["2"] and found.rows[0].at == "3"


def test_spreadsheets_say_how_to_save(tmp_path):
    with pytest.raises(UserError, match="CSV"):
        read_spreadsheet("p.xlsx", Ask(key="data.pairs"))
