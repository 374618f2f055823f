"""What stands before clip_benchmark's own command; the command itself is in tests/test_judge.py."""

import importlib
import sys
import types
from urllib.error import URLError

import pytest

from ape_jax.errors import UserError
from ape_jax.judges import in_clip_benchmark


def test_a_later_argument_replaces_ours():
    given = ["eval", "--model", "x", "--output", "y.json"]
    made = in_clip_benchmark.arguments(given)
    assert made[0] == "eval" and made[-4:] == given[1:]
    assert [word.split("=")[0] for word in made[1:4]] == [
        "--model_type",
        "--pretrained",
        "--output",
    ]


@pytest.mark.parametrize(
    "given", [["build", "a.json"], [], ["--help"], ["eval", "--model_type=ja_clip", "--model=x"]]
)
def test_what_is_not_for_us_is_left_alone(given):
    assert in_clip_benchmark.arguments(given) == given


def test_other_weights_than_the_run_s_are_refused():
    with pytest.raises(UserError, match="--pretrained: a run has its own weights, found 'laion'"):
        in_clip_benchmark.load("runs/x", "laion")


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (URLError("no such host"), "clip_benchmark ended with: <urlopen error no such host>"),
        (ValueError("Unsupported dataset:\nnosuch."), "ended with: Unsupported dataset: nosuch."),
        (UserError("--model: our own words"), "^--model: our own words$"),
    ],
)
def test_what_their_command_cannot_read_is_one_sentence(monkeypatch, raised, words):
    def main():
        raise raised

    monkeypatch.setattr(in_clip_benchmark, "register", lambda double: None)
    monkeypatch.setattr(in_clip_benchmark, "_import", lambda name: types.SimpleNamespace(main=main))
    monkeypatch.setattr(sys, "argv", ["judge"])
    with pytest.raises(UserError, match=words):
        in_clip_benchmark.run(["eval", "--model=x"])


def test_a_missing_package_is_named_with_the_file_that_has_it(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError("No module named 'webdataset'", name="webdataset")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"webdataset is not installed.*ape_jax\[judges\]"):
        in_clip_benchmark.register()
