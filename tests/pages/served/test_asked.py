"""What a request may ask of the page's functions: each mistake is one sentence."""

import json
import random

import pytest

from ape_jax.errors import UserError
from ape_jax.pages.served import asked
from ape_jax.pages.served.kept import Kept

_SESSION = "abc123"


@pytest.fixture
def questions(tmp_path):
    (tmp_path / "own.png").write_bytes(b"png")
    kinds = [asked.text, asked.choice, asked.whole(1, 48), asked.file(Kept(tmp_path))]
    return asked.Questions({0: [], 3: kinds})


def body(**changes):
    asked = {"fn_index": 3, "session_hash": _SESSION, "data": ["a cat", "photos", 12, None]}
    return json.dumps({**asked, **changes}).encode()


def test_only_checked_values_go_on(questions, tmp_path):
    file = {"path": str(tmp_path / "own.png"), "url": "http://evil.example", "meta": {"a": 1}}
    extra = {"event_data": {"x": 1}, "trigger_id": 7, "simple_format": True, "request": {}}
    found = questions.checked(body(data=["a cat", None, 12.0, file], **extra))
    assert set(found) == {"fn_index", "session_hash", "trigger_id", "data"}
    text, choice, count, own = found["data"]
    assert (text, choice, count, found["trigger_id"]) == ("a cat", None, 12, 7)
    assert own["path"] == str(tmp_path / "own.png") and "url" not in own
    assert questions.checked(body(fn_index=0, data=[]))["data"] == []


_SENT = [
    (b"", "not JSON"),
    (b"{", "not JSON"),
    (b"\xff\xfe", "not JSON"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"data":' + b"[" * 100_000, "nested too deeply"),
    (b"[]", "holds a list"),
    (b"null", "holds null"),
    (b'{"fn_index": ' + b"9" * 5000 + b"}", "not JSON"),
    (body(session_hash=None), "session_hash"),
    (body(session_hash="../../x"), "session_hash"),
    (body(session_hash=["x"]), "session_hash"),
    (body(session_hash="x" * 65), "session_hash"),
    *[(body(fn_index=i), "fn_index") for i in (1, -1, 10**9, "3", None, True, 3.0, [3], {})],
    *[(body(data=d), "data must be a list of 4") for d in ([], [1], {}, None, "x", [None] * 5)],
]


@pytest.mark.parametrize(("sent", "words"), _SENT)
def test_what_is_no_question_is_one_sentence(questions, sent, words):
    with pytest.raises(UserError, match=words) as error:
        questions.checked(sent)
    assert len(str(error.value)) < 300 and "\n" not in str(error.value)


_WRONG = {
    0: [1, 1.5, True, [], {}, ["a"], {"a": "b"}],
    1: [1, True, [], {}, ["photos"], "x" * 6000],
    2: [0, 49, -1, 1.5, "12", None, True, [12], {}, 1e400, float("nan"), 10**30],
    3: [
        *(1, "x", [], {}, ["own.png"], {"path": 3}, {"path": None}),
        *({"path": path} for path in ("/etc/passwd", "\0", "http://a/", "own.png", "x" * 5000)),
    ],
}


@pytest.mark.parametrize(
    ("place", "value"), [(place, value) for place, values in _WRONG.items() for value in values]
)
def test_an_argument_of_another_kind_is_one_sentence(questions, place, value):
    data = ["a cat", "photos", 12, None]
    data[place] = value
    with pytest.raises(UserError, match="the request: ") as error:
        questions.checked(body(data=data))
    assert len(str(error.value)) < 300 and "\n" not in str(error.value)


def test_random_values_are_taken_or_one_sentence(questions):
    draw = random.Random(0)

    def value(depth):
        kind = draw.randrange(8 if depth else 6)
        plain = [None, True, draw.uniform(-99, 99), draw.randrange(-9, 60), "x" * draw.randrange(9)]
        if kind < 5:
            return plain[kind]
        if kind < 7:
            return [value(depth - 1) for _ in range(draw.randrange(5))] if depth else "a"
        return {f"{i}": value(depth - 1) for i in range(draw.randrange(3))}

    refused = 0
    for _ in range(2000):
        data = [value(1) for _ in range(4)] if draw.random() < 0.8 else value(2)
        try:
            found = questions.checked(body(fn_index=draw.choice([0, 3, 3, 3, 5]), data=data))
        except UserError:
            refused += 1
        else:
            assert found["fn_index"] == 0 or isinstance(found["data"][2], int)
    assert 1000 < refused < 2000
