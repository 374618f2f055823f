"""The `ape-jax` script: its list of commands, their pages, and wrong names."""

import importlib
import os
import subprocess
import sys

import pytest

from ape_jax import cli
from ape_jax.terminal import catalogue, command, help

# A module that this process has imported already is started a second time.
pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
PAGES = [name for name in catalogue.COMMANDS if name != "demo"]  # It reads its own flags.


def called(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["ape-jax", *words])
    try:
        cli.main()
    except SystemExit as stop:
        return stop.code or 0
    return 0


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_all_commands_are_listed(words, monkeypatch, capsys):
    assert called(monkeypatch, *words) == 0
    out = capsys.readouterr().out
    for name, entry in catalogue.COMMANDS.items():
        assert f"  {name:10}{entry.does}\n" in out


def test_version(monkeypatch, capsys):
    assert called(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.startswith("ape_jax ")


@pytest.mark.parametrize(("wrote", "meant"), [("evalute", "evaluate"), ("tran", "train")])
def test_mistyped_command_names_the_nearest(wrote, meant, monkeypatch, capsys):
    assert called(monkeypatch, wrote) == 2
    assert capsys.readouterr().err == f"error: no command {wrote!r}; did you mean {meant!r}?\n"


@pytest.mark.parametrize("name", PAGES)
def test_page_shows_own_flags_and_examples(name, monkeypatch, capsys):
    assert called(monkeypatch, name, "--help") == 0
    page, entry = capsys.readouterr().out, catalogue.COMMANDS[name]
    own = importlib.import_module(entry.module).FLAGS
    assert all(example in page for example in entry.examples)
    assert all(f"{own[flag].name}" in page for flag in own if name != "judge")
    assert "logtostderr" not in page and "pdb" not in page
    assert all(f"  {code}" in page for code in help.EXIT_CODES)


@pytest.mark.parametrize("name", PAGES)
def test_commands_end_with_the_same_entry(name):
    module = importlib.import_module(catalogue.COMMANDS[name].module)
    assert command._name(module.main) == name


def test_lists_and_pages_wait_for_no_jax():
    code = (
        "import sys; from ape_jax import cli\n"
        "for sys.argv[1:] in ([], *([name, '--help'] for name in sys.argv[1:])):\n"
        "    try: cli.main()\n"
        "    except SystemExit as stop: assert not stop.code\n"
        "print('jax' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *PAGES], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.endswith("False False\n"), done.stderr


def test_formats_are_in_the_page_of_export():
    from ape_jax.exporters.formats import EXPORTS

    own = importlib.import_module("ape_jax.export").FLAGS
    assert all(f"{name}" in own["format"].help for name in EXPORTS)


@pytest.mark.parametrize(
    "words", [["--help-config", "lr"], ["train", "--help-config=lr"], ["plan", "--help-config=lr"]]
)
def test_config_keys_are_listed(words, monkeypatch, capsys):
    assert called(monkeypatch, *words) == 0
    out = capsys.readouterr().out
    assert "optim.lr = 0.001\n      Peak learning rate.\n" in out and "train.batch" not in out


def test_config_keys_bring_the_names_that_they_take(monkeypatch, capsys):
    assert called(monkeypatch, "train", "--help-config", "tower") == 0
    out = capsys.readouterr().out
    assert "image.tower takes:\n" in out and "dinov2" in out
    assert called(monkeypatch, "train", "--help-config", "no such key") == 1
    assert "no key matches 'no such key'" in capsys.readouterr().err


def test_rest_of_the_line_is_the_commands_own(monkeypatch, capsys):
    assert called(monkeypatch, "page", "--config=x") == 1
    assert "this command takes the config of --workdir" in capsys.readouterr().err


def test_judge_without_words_is_one_sentence(monkeypatch, capsys):
    assert called(monkeypatch, "judge") == 1
    assert capsys.readouterr().err.startswith("error: expected `eval --model DIR")


def test_a_reader_that_has_gone_gets_no_traceback():
    read, write = os.pipe()
    os.close(read)
    words = [sys.executable, "-m", "ape_jax", "--help-config"]
    ended = subprocess.run(words, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert ended.stderr == ""


def test_interrupted_while_a_command_is_imported(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.runpy, "run_module", interrupted)
    assert called(monkeypatch, "plan") == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_choices_of_a_flag_are_said_once(monkeypatch, capsys):
    assert called(monkeypatch, "evaluate", "--help") == 0
    assert capsys.readouterr().out.count("retrieval|zeroshot") == 1
