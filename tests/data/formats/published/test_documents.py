"""JSON documents read an element at a time give what `json` gives of the whole."""

import bz2
import functools
import gzip
import json
import lzma

import pytest

from ape_jax.data import open_pairs
from ape_jax.data.formats.published import documents
from ape_jax.data.formats.published.documents import look
from ape_jax.data.options import Reading
from ape_jax.data.rows import MAX_RECORD_BYTES
from ape_jax.errors import UserError

DOCUMENT = {
    "info": {"year": 2017, "ü": [1, 2]},
    "images": [{"id": i, "name": f'a "{i}"\\ \n', "x": -i / 7} for i in range(50)],
    "none": None,
    "empty": [],
    "deep": [[[1], 2], {"a": {"b": "]}"}}, "text", 12345, True, None],
}

elements = functools.partial(documents.elements, say=lambda line: None)


@pytest.fixture
def cut(monkeypatch):
    """Has files read in chunks of so many bytes."""
    whole = documents.utf8_chunks

    def set_size(size):
        def cuts(path, say):
            for chunk in whole(path, say):
                yield from (chunk[i : i + size] for i in range(0, len(chunk), size))

        monkeypatch.setattr(documents, "utf8_chunks", cuts)

    return set_size


def put_together(path) -> dict:
    read: dict = {}
    for element in elements(path):
        if element.number < 0:
            read[element.key] = element.value
        else:
            assert element.number == len(read.setdefault(element.key, []))
            read[element.key].append(element.value)
    return read


@pytest.mark.parametrize("window", [1, 2, 3, 7, 64, 2**20])
@pytest.mark.parametrize("layout", [{}, {"indent": 2}, {"separators": (",", ":")}])
def test_a_document_is_what_json_makes_of_it_whatever_the_window(write, cut, window, layout):
    cut(window)
    path = write("a.json", "\ufeff \n" + json.dumps(DOCUMENT, **layout) + "\n\n")
    whole = {key: value for key, value in DOCUMENT.items() if value != []}
    assert put_together(str(path)) == whole


@pytest.mark.parametrize("window", [1, 5, 2**20])
def test_a_list_is_what_json_makes_of_it(write, cut, window):
    cut(window)
    path = write("a.json", DOCUMENT["deep"])
    assert [e.value for e in elements(str(path))] == DOCUMENT["deep"]
    assert [e.at for e in elements(str(path))][:2] == ["[0]", "[1]"]


def test_a_look_stops_early_and_never_fails(write):
    long = {"images": [{"id": i, "file_name": "x" * 100} for i in range(2000)], "z": 1}
    assert look(str(write("a.json", long))) == {"images": long["images"][0]}
    assert look(str(write("b.json", b"\xff\xfe{}["))) == {}
    assert look("nowhere.json") == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "JSON begins with .*found nothing"),
        ("image,caption\n", "JSON begins with .*found 'i'"),
        ('{"images": [{"id": 1}, {"id"', r"images\[1\] .*the file ends before.*copy it again"),
        ('{"images": [{"id": 1}', r"images\[1\] .*the file ends before.*copy it again"),
        ('{"images": [{"id": 1},\n{id: 2}]}', r"images\[1\] \(line 2\): .*not"),
        ('{"images": [1 2]}', r"images\[1\] .*found '2' where ',' or ']' should be"),
        ('{images: [1]}', "a key .*not JSON"),
        ('{1: [1]}', "write text in quotes"),
        ('{"a": [1, {"id": 1, "id": 2}]}', r"a\[1\]: the key 'id' is there twice"),
        ('{"images": [1]} {"images": [2]}', "more text behind the end .*jsonl"),
        (b'{"a": ["\xff"]}', "not UTF-8"),
        ("\ufeff[1]".encode("utf-16-le")[:-1], "the text is damaged"),
        ('{"a": [' + "[" * 100_000, r"a\[0\] .*nested too deep"),
        ("[" * 100_000, r"\[0\] .*nested too deep"),
        ("[" + "9" * 5000 + "]", r"\[0\] .*Exceeds the limit"),
    ],
)  # fmt: skip
def test_a_damaged_document_is_one_sentence(write, content, words):
    path = write("a.json", content)
    with pytest.raises(UserError, match=f"a.json: .*{words}") as error:
        list(elements(str(path)))
    assert "\n" not in str(error.value)


def test_an_element_without_end_is_refused_in_bounded_memory(write):
    path = write("a.json", '{"images": ["' + "x" * (3 * MAX_RECORD_BYTES))
    with pytest.raises(UserError, match=r"images\[0\] .*longer than"):
        list(elements(str(path)))


PUBLISHED = {
    "captions_x.json": json.dumps(
        {
            "images": [{"id": 9, "file_name": "é.jpg"}],
            "annotations": [{"id": 1, "image_id": 9, "caption": "a cat"}],
        }
    ),
    "a.token": "é.jpg#0\ta cat\n",
    "captions.txt": "image,caption\né.jpg,a cat\n",
    "m.jsonl": json.dumps({"pdf_hash": "é", "fig_uri": "1.jpg", "s2_caption": "a cat"}),
}
PACKED = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("ending", PACKED)
@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_published_is_read_in_every_encoding_and_compressed(write, name, ending, encoding):
    path = write(name + ending, PACKED[ending](PUBLISHED[name].encode(encoding)))
    (pair,) = open_pairs(path, reading=Reading(look=False))
    assert pair.captions == ("a cat",) and pair.id.startswith("é")
