"""`ape-jax pairs`: what it says of a small source, as people and as scripts read it."""

import collections
import html
import json
import os
import subprocess
import sys

import pytest
import tokenizers

from ape_jax import pairs
from ape_jax.data.table import sheet
from ape_jax.terminal import command
from tests.broken import BROKEN


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


@pytest.mark.parametrize("verify", [False, True])
def test_broken_rows_are_counted_by_kind_and_shown(broken, look, tmp_path, verify):
    page = tmp_path / "x.html"
    code, out, _ = look(str(broken), f"--html={page}", "--json", f"--verify={verify}")
    found = json.loads(out)
    decoded = ("not an image", "damaged image")
    kinds = collections.Counter(kind for kind, _ in BROKEN if verify or kind not in decoded)
    assert code == 0 and found["cannot_be_used"]["kinds"] == kinds
    assert found["images"] == 24 + 2 * (not verify) and found["cannot_be_used"]["rows"] == 32
    first = {problem["kind"]: problem for problem in found["cannot_be_used"]["first"]}
    assert first["missing image"]["where"] == f"{broken}:4 (gone.png)"
    text = page.read_text()
    assert all(html.escape(problem["reason"]) in text for problem in first.values())
    assert ("Images of this page that cannot be read" in text) == (not verify)


def test_columns_are_chosen_and_what_is_left_is_said(tiny, look, tmp_path):
    header = "path,title,text,width"
    (tmp_path / "p.csv").write_text(f"{header}\n{tiny / 'red-bar.png'},one,two,3\n")
    said = {}
    for words in (
        (),
        ("--columns", "captions=title"),
        ("--columns", "image=path,captions=text,title"),
    ):
        _, out, _ = look(str(tmp_path / "p.csv"), "--json", *words)
        found = json.loads(out)
        (note,) = found["notes"]
        assert "not read" in note and "'width'" in note
        said[tuple(found["samples"][0]["captions"])] = note
    assert set(said) == {("two",), ("one",), ("two", "one")}


def test_verify_reads_a_table_in_the_cache_folder_again(tiny, look, tmp_path, monkeypatch):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sheet, "_IN_MEMORY", 0)
    pairs = tmp_path / "p.jsonl"
    for caption, words in (("one", ()), ("two", ("--verify",))):
        pairs.write_text(json.dumps({"image": str(tiny / "red-bar.png"), "caption": caption}))
        os.utime(pairs, (1, 1))  # Equal size and time: only the content differs.
        _, out, _ = look(str(pairs), "--json", *words)
        assert json.loads(out)["samples"][0]["captions"] == [caption]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "error: expected pairs"),
        (["none.jsonl"], "error: pairs: there is no file 'none.jsonl'"),
        (["a.jsonl", "b.jsonl"], "error: unexpected argument"),
        (["PAIRS", "--text=features:8"], "error: --text: 'features:8' stands for vectors"),
        (["PAIRS", "--columns=captions"], "error: --columns: expected image, captions"),
        (["PAIRS", "--html=/proc/no/such"], "error: --html: /proc/no/such cannot be written"),
    ],
)
def test_what_is_wrong_is_one_sentence(tiny, look, words, sentence):
    words = [word.replace("PAIRS", str(tiny / "pairs.jsonl")) for word in words]
    code, _, err = look(*words)
    assert code == 1 and err.splitlines()[-1].startswith(sentence)
