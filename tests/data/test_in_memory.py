"""Pairs that a program holds: what is taken, what it becomes, and what is refused."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from ape_jax.data import in_memory
from ape_jax.data.options import Reading
from ape_jax.data.specs import open_pairs
from ape_jax.errors import UserError
from ape_jax.images.decode import load_image


def drawn(seed=0, mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 5, 4), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def opened(pairs, folder):
    return open_pairs(in_memory.as_spec(pairs, folder, key="pairs"))


@pytest.fixture
def file(tmp_path):
    drawn(9).save(tmp_path / "nine.png")
    return tmp_path / "nine.png"


def encoded(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_images_of_every_kind_keep_their_pixels(tmp_path, file):
    kinds = [drawn(1), encoded(drawn(2)), np.asarray(drawn(3)), file, str(file)]
    pairs = opened([(image, f"caption {i}") for i, image in enumerate(kinds)], tmp_path / "out")
    expected = [drawn(1), drawn(2), drawn(3), drawn(9)]
    assert [pair.captions for pair in pairs] == [
        ("caption 0",),
        ("caption 1",),
        ("caption 2",),
        ("caption 3", "caption 4"),  # One file is one image.
    ]
    for pair, image in zip(pairs, expected, strict=True):
        np.testing.assert_array_equal(load_image(pair.image), np.asarray(image))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "CMYK", "YCbCr"])
def test_pil_images_of_every_mode_are_what_decoding_makes_of_them(mode, tmp_path):
    image = drawn(1).convert("I").convert("I;16") if mode == "I;16" else drawn(1).convert(mode)
    (pair,) = opened([(image, "x")], tmp_path)
    np.testing.assert_array_equal(load_image(pair.image), load_image(image))


def test_an_image_that_was_turned_in_memory_is_not_read_from_its_file(tmp_path, file):
    untouched, changed = Image.open(file), Image.open(file)
    changed.paste((0, 0, 0), (0, 0, 5, 6))
    first, second = opened([(untouched, "a"), (changed, "b")], tmp_path / "out")
    assert first.image.source == str(file)
    assert load_image(second.image).max() == 0


def test_several_captions_of_an_image_stay_together(tmp_path):
    (pair,) = opened([(drawn(), ["a", "b"])], tmp_path)
    assert pair.captions == ("a", "b")


def rows_of(columns):
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize("kind", ["pandas", "arrow", "columns", "rows"])
def test_tables_are_read_by_the_names_that_people_use(kind, tmp_path, file, capsys):
    columns = {"id": [1, 2], "File_Name": [str(file), str(file)], "Text": ["a", "b"]}
    make = {"pandas": pd.DataFrame, "arrow": pa.table, "columns": dict, "rows": rows_of}[kind]
    (pair,) = opened(make(columns), tmp_path / "out")
    assert pair.captions == ("a", "b")
    said = capsys.readouterr().err
    assert "images from 'File_Name', captions from 'Text'; not read: 'id'" in said


def test_a_hugging_face_data_set_keeps_its_encoded_bytes(tmp_path):
    class Image:  # As datasets.Image, which the tests do not install.
        def __init__(self, decode=True):
            self.decode = decode

    class Dataset:
        column_names, features = ["image", "caption"], {"image": Image()}

        def select_columns(self, names):
            return self

        def cast_column(self, name, feature):
            assert not feature.decode
            return [{"image": {"bytes": encoded(drawn(4)), "path": None}, "caption": "x"}]

    (pair,) = opened(Dataset(), tmp_path)
    assert pair.image.content == encoded(drawn(4))


def test_equal_pairs_have_one_digest_wherever_they_are_written(tmp_path):
    def digest(folder, caption="a"):
        return opened([(drawn(1), caption), (drawn(2), "b")], tmp_path / folder).digest

    assert digest("one") == digest("two") != digest("three", "c")


def test_a_spec_stays_itself_with_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert in_memory.as_spec("demo:twemoji:train", tmp_path, key="pairs") == "demo:twemoji:train"
    assert in_memory.as_spec(Path("x.csv"), tmp_path, key="pairs") == str(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (5, "pairs: expected a spec .* found int"),
        ([], "pairs: expected at least one pair, found none"),
        ([drawn()], r"pairs\[0\]: expected \(image, caption\)"),
        (["cat.png"], r"pairs\[0\]: expected \(image, caption\)"),
        ([(drawn(), "a"), (None, "b")], r"pairs\[1\]: an image must be .* found NoneType"),
        ([(drawn(), "")], r"pairs\[0\]: a caption is empty"),
        ([(drawn(), float("nan"))], r"pairs\[0\]: 'caption' is nan"),
        ([("no-such.png", "a")], r"pairs\[0\] \(no-such.png\): there is no such file"),
        ([(np.zeros((2, 2)), "a")], r"pairs\[0\]: an image array must be uint8"),
        ({"image": ["x"], "label": [1]}, "found the columns 'image', 'label'"),
        ({"image": ["x"], "caption": []}, "1 and 0 rows"),
        ([{"image": drawn(), "label": "a"}], "found the columns 'image', 'label'"),
        ([{"image": drawn(), "caption": "a"}, {"image": drawn()}], r"pairs\[1\]: .* 'caption'"),
    ],
)
def test_what_is_no_pair_is_one_sentence(pairs, words, tmp_path):
    with pytest.raises(UserError, match=words) as error:
        opened(pairs, tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob(".*")) and not list(tmp_path.glob("*.parquet"))


def test_lists_and_mixtures_of_specs_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    specs = {"a.jsonl": 2, "s3://bucket/b.tar": 1, "demo:icons:train": 1}
    listed = f"{tmp_path}/a.jsonl::s3://bucket/b.tar::demo:icons:train"
    assert in_memory.as_spec(list(specs), tmp_path, key="pairs") == listed
    assert in_memory.as_spec(specs, tmp_path, key="pairs") == f"{listed}::weights=2,1,1"


def test_rows_that_may_be_left_out_are_left_out_and_counted(tiny, tmp_path):
    image = str(tiny / "red-bar.png")
    pairs = [
        (image, "a red bar"), (image, ""), (str(tiny / "blue-bar.png"), [" ", "a blue bar"]),
        (str(tiny / "red-circle.png"), None), (str(tiny / "blue-circle.png"), float("nan")),
        (str(tiny / "gone.png"), "a bar"), (b"", "a bar"), (image, []),
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"pairs\[1\]: a caption is empty"):
        in_memory.as_spec(pairs, tmp_path, key="pairs")
    reading = Reading(on_error="skip", max_skipped=2.0)  # Of rows and images together.
    opened = in_memory.open_any(pairs, tmp_path, key="pairs", reading=reading)
    assert [pair.captions for pair in opened] == [("a red bar",), ("a blue bar",)]
    counts = opened.problems.counts()
    assert counts["missing image"] == 1 and counts["empty image"] == 1
    assert counts["empty caption"] >= 4


@pytest.mark.parametrize("caption", [3, ["a", 4], "half \ud800"])
def test_what_is_no_text_stops_also_where_rows_may_be_left_out(tiny, tmp_path, caption):
    pairs = [(str(tiny / "red-bar.png"), caption)]
    with pytest.raises(UserError, match=r"pairs\[0\]: (a )?caption"):
        in_memory.as_spec(pairs, tmp_path, key="pairs", on_error="skip")


def test_a_missing_value_of_pandas_is_an_empty_caption(tiny, tmp_path):
    images = [str(tiny / "red-bar.png"), str(tiny / "blue-bar.png")]
    table = pd.DataFrame({"image": images, "caption": pd.array(["a bar", pd.NA], "string")})
    with pytest.raises(UserError, match="row 1: 'caption' is <NA>; write a caption or remove"):
        in_memory.as_spec(table, tmp_path, key="pairs")


LANG_AND_STYLE = {"lang": "data.language", "style": "data.domain"}
TABLE = {
    "image": [drawn(1), drawn(2), drawn(2)],
    "caption": ["one", ["two", "deux"], "due"],
    "lang": ["en", ["en", "fr"], "it"],
    "style": ["flat", 7, 7],
}


@pytest.mark.parametrize(
    "kind", [dict, pd.DataFrame, pa.table, lambda t: pd.DataFrame(t).to_dict("records")]
)
def test_columns_of_languages_and_domains_are_kept_where_they_are_named(tmp_path, kind):
    table = dict(TABLE)
    if kind is pa.table:  # Of one type a column.
        table["image"] = [encoded(image) for image in table["image"]]
        table["caption"] = [[x] if isinstance(x, str) else x for x in table["caption"]]
        table["lang"] = [[x] if isinstance(x, str) else x for x in table["lang"]]
        table["style"] = ["flat", "7", "7"]
    spec = in_memory.as_spec(kind(table), tmp_path, key="pairs", keep=LANG_AND_STYLE)
    reading = Reading(columns={"language": ("lang",), "domain": ("style",)})
    pairs = open_pairs(spec, reading=reading)
    assert [(pair.captions, pair.languages) for pair in pairs] == [
        (("one",), ("en",)),
        (("two", "deux", "due"), ("en", "fr", "it")),
    ]
    (domains,) = pairs.table.column("domain", pairs.rows)
    assert domains.to_pylist() == ["flat", "7"]


@pytest.mark.parametrize("on_error", ["error", "skip"])
def test_captions_that_come_twice_keep_their_languages(tmp_path, on_error):
    captions = [["one", "one", "un"], ["", "two", "", "deux"]][: 1 + (on_error == "skip")]
    languages = [["en", "en", "fr"], ["it", "en", "de", "fr"]][: len(captions)]
    table = {"image": [drawn(1), drawn(2)], "caption": captions, "lang": languages}
    table["image"] = table["image"][: len(captions)]
    reading = Reading(columns={"language": ("lang",)}, on_error=on_error, max_skipped=2.0)
    pairs = in_memory.open_any(table, tmp_path, key="pairs", reading=reading)
    wanted = [(("one", "un"), ("en", "fr")), (("two", "deux"), ("en", "fr"))]
    assert [(p.captions, p.languages) for p in pairs] == wanted[: len(captions)]


@pytest.mark.parametrize("missing", [pd.NA, pd.NaT, None, float("nan"), ""])
@pytest.mark.parametrize("column", ["lang", "style"])
def test_a_missing_language_or_domain_is_said(tmp_path, column, missing):
    table = {**TABLE, column: ["x", missing, "x"]}
    reading = Reading(columns={"language": ("lang",), "domain": ("style",)})
    with pytest.raises(UserError, match=f"row 1: '{column}' is null or empty; write the"):
        in_memory.open_any(table, tmp_path, key="pairs", reading=reading)


def test_other_languages_are_other_pairs(tmp_path):
    specs = [
        in_memory.as_spec(
            {**TABLE, "lang": ["en", "en", name]}, tmp_path, key="pairs", keep={"lang": "x.y"}
        )
        for name in ("it", "fr", "it")
    ]
    assert specs[0] == specs[2] != specs[1]


def test_rows_of_pairs_opened_with_named_columns_keep_them(tmp_path):
    reading = Reading(columns={"language": ("lang",)})
    pairs = in_memory.open_any(TABLE, tmp_path, key="pairs", reading=reading)
    assert pairs[0].languages == ("en",)


@pytest.mark.parametrize(
    ("pairs", "keep", "words"),
    [
        (TABLE, {"tongue": "data.language"}, "no column 'tongue', which data.language names"),
        (TABLE, {"caption": "data.domain"}, "'caption', which data.domain names, is images or"),
        ([("a.png", "a")], {"lang": "data.language"}, "has no column 'lang', which data.language"),
        ({**TABLE, "lang": [1.5, "en", "en"]}, {"lang": "x.y"}, "row 0: 'lang' is 1.5; write text"),
    ],
)
def test_named_columns_that_cannot_be_kept_are_refused(tmp_path, pairs, keep, words):
    with pytest.raises(UserError, match=words):
        in_memory.as_spec(pairs, tmp_path, key="pairs", keep=keep)
