"""Formats of pairs: recognised by prefix or suffix, declared in one file each."""

import dataclasses
import subprocess
import sys

import pytest

from ape_jax.data import open_labelled, open_pairs
from ape_jax.data.formats import registry
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.rows import FileRows, Row
from ape_jax.errors import UserError


def read_lines(path, ask):
    def rows():
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                image, text = line.strip().split(" ", 1)
                yield Row(str(number), {"image": image, ask.wanted: text})

    return FileRows(rows=rows(), named=True)


LINES = PairsFormat(name="lines", spec="*.lines", suffixes=(".lines",), read=read_lines)


@pytest.fixture
def lines():
    yield registry.FORMATS.register(LINES)
    registry.FORMATS.unregister("lines")


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(b"not decoded here")
        (tmp_path / f"{name}.lines").write_text(f"{name}.png the {name}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("x.jsonl", "jsonl"),
        ("tfds:x.jsonl:train", "tfds"),
        ("X.TSV", "csv"),
        ("a-{0..2}.tar", "webdataset"),
        ("demo:icons:test", "demo"),
        ("features:x.parquet", "features"),
        ("x.parquet", "parquet"),
    ],
)
def test_format_of_a_spec(spec, name):
    assert registry.find(spec, key="data.pairs").name == name


def test_unknown_form_lists_what_there_is():
    with pytest.raises(UserError) as error:
        registry.find("x.txt", key="data.pairs")
    assert str(error.value).startswith("data.pairs: 'x.txt' is of no known form; write *.jsonl, ")
    assert str(error.value).endswith("demo:NAME[/LANGUAGE]:SPLIT or features:FILES")


def test_format_from_outside_opens_pairs_and_labelled_images(lines, folder):
    pairs = open_pairs(folder / "{a,b}.lines")
    assert [(pair.id, pair.captions) for pair in pairs] == [
        ("a.png", ("the a",)),
        ("b.png", ("the b",)),
    ]
    labelled = open_labelled(folder / "a.lines", ["the a"])
    assert labelled[0].label == 0


def test_format_from_outside_is_in_messages_while_it_is_registered(lines):
    with pytest.raises(UserError, match=r"or \*\.lines"):
        registry.find("x.txt", key="data.pairs")


def test_prefix_goes_before_a_suffix(folder):
    named = PairsFormat(name="named", spec="named:FILE", prefix="named:", read=read_lines)
    registry.FORMATS.register(named)
    try:
        assert registry.find("named:x.jsonl", key="data.pairs") is named
        assert registry.is_named("named:x.jsonl") and not registry.is_named("x.jsonl")
    finally:
        registry.FORMATS.unregister("named")


@pytest.mark.parametrize(
    "change", [{"prefix": "x:"}, {"suffixes": ()}, {"read": PairsFormat.read}, {"open": open_pairs}]
)
def test_format_has_one_way_of_being_recognised_and_one_of_being_read(change):
    with pytest.raises(ValueError, match="pairs format 'lines'"):
        dataclasses.replace(LINES, **change)


def test_heavy_packages_are_imported_by_those_who_need_them():
    code = (
        "import sys\n"
        "from ape_jax.data.formats import registry\n"
        "registry.find('x.jsonl', key='data.pairs')\n"
        "print({'tensorflow_datasets', 'pyarrow', 'resvg_py'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
