"""Flickr30k and Flickr8k, as published and as on Kaggle."""

import pytest

from ape_jax.data.formats.published.flickr import BARS, COMMAS, TOKEN
from ape_jax.errors import UserError

TOKENS = (
    "1000092795.jpg#0\tTwo young guys, with shaggy hair .\n"
    '1000092795.jpg#1\tTwo "young" men\r\n'
    "\n"
    "10002456.jpg#0\tSeveral men\twork .\n"
)


@pytest.mark.parametrize("name", ["results_20130124.token", "Flickr8k.token.txt"])
def test_token_files(read, write, name):
    got = read(TOKEN, write(name, "\ufeff" + TOKENS))
    assert got.pairs == [
        ("1000092795.jpg", "Two young guys, with shaggy hair ."),
        ("1000092795.jpg", 'Two "young" men'),
        ("10002456.jpg", "Several men\twork ."),
    ]
    assert [row.at for row in got.rows] == ["1", "2", "4"] and got.file.named


def test_the_one_image_of_flickr8k_with_a_number_behind_its_name(read, write):
    got = read(TOKEN, write("a.token", TOKENS + "22_58.jpg.1#0\tA dog .\n22_58.jpg.1#1\tDog .\n"))
    assert got.pairs[-1] == ("22_58.jpg", "Dog .")
    assert "'22_58.jpg.1' is read as '22_58.jpg'" in got.said[0]


def test_lines_that_are_none_are_named(read, write):
    got = read(TOKEN, write("a.token", TOKENS.encode() + b"x.jpg caption\ny.jpg#0\t\xff\n"))
    assert len(got.rows) == 3
    assert [(b.at, b.kind) for b in got.broken] == [("5", "damaged row"), ("6", "not UTF-8")]


BARRED = (
    "image_name| comment_number| comment\n"
    "1.jpg| 0| Two | young guys, with hair .\n"
    "1.jpg| 4   A dog runs across the grass .\n"
    "2.jpg\n"
)


def test_kaggle_s_bars_with_the_row_that_lacks_one(read, write):
    got = read(BARS, write("results.csv", BARRED))
    assert got.pairs == [
        ("1.jpg", " Two | young guys, with hair ."),
        ("1.jpg", "A dog runs across the grass ."),
    ]
    assert "1.jpg, caption 4, has no bar" in got.said[0]
    assert [(b.at, b.kind) for b in got.broken] == [("4", "damaged row")]


def test_kaggle_s_commas_in_captions_are_not_separators(read, write):
    text = (
        "image,caption\n"
        "a.jpg,A child in a pink dress , climbing up\n"
        'a.jpg,"A man, in ""orange"" ."\n'
        'b.jpg,"Stop" is what the sign, says\n'
        "b.jpg\n"
    )
    got = read(COMMAS, write("captions.txt", text))
    assert got.pairs == [
        ("a.jpg", "A child in a pink dress , climbing up"),
        ("a.jpg", 'A man, in "orange" .'),
        ("b.jpg", '"Stop" is what the sign, says'),
    ]
    assert got.broken[0].at == "5"


def test_kaggle_s_commas_with_a_number(read, write):
    text = "image_name,comment_number,comment\na.jpg, 0, One , two\na.jpg,1\n"
    got = read(COMMAS, write("captions.txt", text))
    assert got.pairs == [("a.jpg", " One , two")] and got.broken[0].at == "3"


@pytest.mark.parametrize("name", ["captions.txt", "a.csv"])
def test_other_files_are_not_taken(write, name):
    path = str(write(name, "image,caption,label\na.jpg,x,y\n"))
    assert not any(format.matches(path) for format in (TOKEN, BARS, COMMAS))


def test_labels_are_refused(read, write):
    with pytest.raises(UserError, match="captions and no labels"):
        read(TOKEN, write("a.token", TOKENS), wanted="label")
