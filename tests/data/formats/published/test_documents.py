"""JSON documents read an element at a time give what `json` gives of the whole."""

import json

import pytest

from ape_jax.data.formats.published import documents
from ape_jax.data.formats.published.documents import elements, look
from ape_jax.data.rows import MAX_RECORD_BYTES
from ape_jax.errors import UserError

DOCUMENT = {
    "info": {"year": 2017, "ü": [1, 2]},
    "images": [{"id": i, "name": f'a "{i}"\\ \n', "x": -i / 7} for i in range(50)],
    "none": None,
    "empty": [],
    "deep": [[[1], 2], {"a": {"b": "]}"}}, "text", 12345, True, None],
}


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
def test_a_document_is_what_json_makes_of_it_whatever_the_window(
    write, monkeypatch, window, layout
):
    monkeypatch.setattr(documents, "_WINDOW", window)
    path = write("a.json", "\ufeff \n" + json.dumps(DOCUMENT, **layout) + "\n\n")
    whole = {key: value for key, value in DOCUMENT.items() if value != []}
    assert put_together(str(path)) == whole


@pytest.mark.parametrize("window", [1, 5, 2**20])
def test_a_list_is_what_json_makes_of_it(write, monkeypatch, window):
    monkeypatch.setattr(documents, "_WINDOW", window)
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
        ('{"images": [{"id": 1}, {"id"', r"images\[1\]: .*it ends there.*download"),
        ('{"images": [{"id": 1}', r"images\[1\]: .*it ends there.*download"),
        ('{"images": [{"id": 1}, {id: 2}]}', r"images\[1\]: not a JSON document .*correct"),
        ('{"images": [1 2]}', r"images\[1\]: .*expected ','"),
        ('{images: [1]}', "a key: not a JSON document"),
        ('{1: [1]}', "keys are text"),
        ('{"images": [1]} {"images": [2]}', "more text behind the end .*jsonl"),
        (b'{"a": ["\xff"]}', "not UTF-8"),
        ("\ufeff[1]".encode("utf-16-le"), "not UTF-8"),
        ('{"a": [' + "[" * 100_000, r"a\[0\]: .*lists in lists"),
        ("[" * 100_000, r"\[0\]: .*lists in lists"),
        ("[" + "9" * 5000 + "]", r"\[0\]: not a JSON document \(Exceeds the limit"),
    ],
)  # fmt: skip
def test_a_damaged_document_is_one_sentence(write, content, words):
    path = write("a.json", content)
    with pytest.raises(UserError, match=f"a.json: .*{words}") as error:
        list(elements(str(path)))
    assert "\n" not in str(error.value)


def test_an_element_without_end_is_refused_in_bounded_memory(write):
    path = write("a.json", '{"images": ["' + "x" * (3 * MAX_RECORD_BYTES))
    with pytest.raises(UserError, match=r"images\[0\]: .*longer than"):
        list(elements(str(path)))
