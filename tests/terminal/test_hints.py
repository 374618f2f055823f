"""Flags that a command does not have."""

import importlib

import pytest

from ape_jax.terminal import command


@pytest.mark.parametrize(
    ("name", "words", "hint"),
    [
        ("main", ["--lr=3"], "write --config.optim.lr=3"),
        ("main", ["--batch_size", "32"], "write --config.train.batch=32"),
        ("main", ["--optim.lr", "3"], "write --config.optim.lr=3"),
        ("main", ["--data", "FILE"], "write --config.data.pairs=FILE"),
        ("main", ["--eval=FILE"], "write --config.data.eval.NAME=FILE"),
        ("main", ["--run", "a/b"], "write --workdir a/b"),
        ("main", ["--output=a"], "write --workdir a"),
        ("main", ["--wrokdir=a"], "did you mean --workdir?"),
        ("main", ["--epochs=3"], "epochs x pairs / train.batch"),
        ("main", ["--query=a"], "it is a flag of ape-jax index"),
        ("main", ["--foo"], "ape-jax train --help shows the flags"),
        ("export", ["--output=a"], "write --out a"),
        ("evaluate", ["--model", "a"], "write --workdir a"),
        ("evaluate", ["--lr=3"], "optim.lr is a key of the run's config"),
        ("index", ["--top-k=3"], "write --k 3"),
    ],
)
def test_unknown_flag_says_what_to_write(name, words, hint, capsys):
    module = importlib.import_module(f"ape_jax.{name}")
    with pytest.raises(SystemExit) as stop:
        command.run(module.main, ["ape_jax", *words])
    assert stop.value.code == 2
    flag = words[0].partition("=")[0]
    said = capsys.readouterr().err
    assert said.startswith(f"error: no flag {flag}; ") and said.count("\n") == 1 and hint in said
