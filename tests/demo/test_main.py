"""The command: what it prints and returns."""

import time

import pytest

from ape_jax.demo import __main__ as command


def test_second_run_is_quick_and_lists_every_asset(capsys):
    command.main([])
    capsys.readouterr()
    started = time.monotonic()
    assert command.main([]) == 0
    assert time.monotonic() - started < 3
    out = capsys.readouterr().out
    assert all(name in out for name in ("vit_s14", "minilm", "me5_small", "emoji", "prompts"))


def test_only_one(capsys):
    assert command.main(["--only", "minilm"]) == 0
    out = capsys.readouterr().out
    assert "minilm" in out and "vit_s14" not in out


def test_its_help_calls_it_as_users_do(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    out = capsys.readouterr().out
    assert "usage: ape-jax demo" in out and "python -m" not in out


def test_errors_are_one_line_and_a_status(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path / "file" / "cache"))
    assert command.main(["--only", "prompts"]) == 1
    assert capsys.readouterr().err.startswith("error: The demo cache ")
