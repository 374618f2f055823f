"""`ape-jax pairs`: what it says of a small source, as people and as scripts read it."""

import json
import os
import subprocess
import sys

import pytest
import tokenizers

from ape_jax import pairs
from ape_jax.terminal import command


@pytest.fixture
def look(capsys):
    """Runs the command here; its exit code, output and errors."""

    def run(*words):
        code = 0
        try:
            command.run(pairs.main, ["pairs", *words])
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_the_command_as_a_process_prints_figures_and_writes_a_page(tiny, tmp_path):
    words = [str(tiny / "pairs.jsonl"), "--html", str(tmp_path / "look.html")]
    done = subprocess.run(
        [sys.executable, "-m", "ape_jax", "pairs", *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "XLA_FLAGS": ""},
        check=True,
    )
    lines = dict(line.split("  ", 1) for line in done.stdout.splitlines() if "  " in line[1:])
    assert lines["images"].strip() == "24" and lines["captions"].strip() == "48"
    assert "red-square: a red square | the picture of a red square" in done.stdout
    assert "red-square" in (tmp_path / "look.html").read_text()


def test_json_alone_is_on_stdout(tiny, look, tmp_path):
    code, out, _ = look(str(tiny / "pairs.jsonl"), "--json", f"--html={tmp_path / 'x.html'}")
    found = json.loads(out)
    assert code == 0 and found["images"] == 24 and found["per_image"]["max"] == 2
    assert found["words"]["histogram"] == [["3", 24], ["6", 24]]
    assert found["samples"][0]["captions"] == ["a red square", "the picture of a red square"]
    assert found["scripts"] == {"Latin": 48}


def test_tokens_are_the_towers_own(tiny, look):
    code, out, _ = look(f"--data={tiny / 'pairs.jsonl'}", f"--text={tiny / 'text'}", "--json")
    own = tokenizers.Tokenizer.from_file(str(tiny / "text/tokenizer.json"))
    lengths = {len(own.encode(text).ids) for text in ("a red square", "the picture of a red bar")}
    found = json.loads(out)["tokens"]
    assert code == 0 and {found["min"], found["max"]} == lengths
    assert (found["limit"], found["cut"]) == (16, 0)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "error: expected pairs"),
        (["none.jsonl"], "error: pairs: there is no file 'none.jsonl'"),
        (["a.jsonl", "b.jsonl"], "error: unexpected argument"),
        (["PAIRS", "--text=features:8"], "error: --text: 'features:8' stands for vectors"),
        (["PAIRS", "--html=/proc/no/such"], "error: --html: /proc/no/such cannot be written"),
    ],
)
def test_what_is_wrong_is_one_sentence(tiny, look, words, sentence):
    words = [word.replace("PAIRS", str(tiny / "pairs.jsonl")) for word in words]
    code, _, err = look(*words)
    assert code == 1 and err.splitlines()[-1].startswith(sentence)
