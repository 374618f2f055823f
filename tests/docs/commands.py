"""Checks commands of the documentation against what they call, without running them."""

from __future__ import annotations

import argparse
import importlib
import re
import tomllib

from ape_jax.studies.config import StudyConfig
from ape_jax.terminal import command, flags
from ape_jax.terminal.catalogue import COMMANDS
from tests.docs.blocks import ROOT

_EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get(
    "optional-dependencies", {}
)
# Programs of others; what stands behind them is theirs.
_OTHERS = {"git", "kubectl", "mkdocs", "time", "gcloud", "sha256sum"}
_ARGUMENTS_OF_THEIRS = {"judge"}


def check(words: list[str], *, mentioned: bool = False) -> None:
    """Raises where a command would be refused: flags, recipe, keys, files and extras.

    Args:
      words: of the command line.
      mentioned: whether it stands in a sentence, where it may lack the config that it needs.
    """
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    first, *rest = words
    if first == "ape-jax":
        _our_command(rest, mentioned)
    elif first == "python" and rest[0] == "-m":
        _module(rest[1], rest[2:], mentioned)
    elif first == "python":
        _script(rest[0], rest[1:])
    elif first == "pytest":
        assert (ROOT / rest[0]).exists(), rest[0]
    elif first.startswith("launch/"):
        _launcher(first, rest)
    elif first == "pip":
        _pip(rest)
    else:
        assert first in _OTHERS, f"{first} is no program that the documentation may use"


def _our_command(words: list[str], mentioned: bool) -> None:
    if words[0] in ("--help", "--help-config"):
        return
    found = COMMANDS[words[0]]
    if words[0] in _ARGUMENTS_OF_THEIRS or {"--help", "--help-config"} & set(words):
        return
    module = importlib.import_module(found.module)
    if not hasattr(module, "FLAGS"):
        _parser_of(found.module, words[1:])
        return
    rest = flags.parse([words[0], *words[1:]], module.FLAGS)
    most = 2 if hasattr(module, "BARE") else 1  # The tower of `ape-jax towers` has no flag.
    assert len(rest) <= most, f"{rest[1:]} are no flags"
    if "config" in module.FLAGS and (flags.CONFIG.value or not mentioned):
        kind = {"kind": StudyConfig} if words[0] == "study" else {}
        command.load_config(**kind)


def _parser_of(module: str, words: list[str]) -> None:
    """The demo's command has a parser of its own, which ends the process where it refuses."""
    names = importlib.import_module(module)._ASSETS
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--only", choices=names, action="append")
    parser.parse_args(words)


def _module(name: str, words: list[str], mentioned: bool) -> None:
    by_module = {made.module: key for key, made in COMMANDS.items()}
    key = by_module.get(name) or by_module.get(f"{name}.__main__")
    if key:
        _our_command([key, *words], mentioned)
    else:
        assert (ROOT / (name.replace(".", "/") + ".py")).is_file(), name


def _script(path: str, words: list[str]) -> None:
    source = (ROOT / path).read_text(encoding="utf-8")
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("--") and not name.startswith("--config"):
            assert f'"{name}"' in source or f'"{name[2:]}"' in source, f"{path} has no {name}"


def _launcher(path: str, words: list[str]) -> None:
    assert (ROOT / path).is_file(), path
    inner = [i for i, word in enumerate(words) if word in ("ape-jax", "python")]
    if inner:
        check(words[inner[0] :])


def _pip(words: list[str]) -> None:
    assert words[0] == "install"
    for word in words[1:]:
        extras = re.search(r"(?:^ape_jax|^\.)\[(.*)\]", word)
        for extra in extras[1].split(",") if extras else ():
            assert extra in _EXTRAS, f"there is no extra {extra}"
        if word.endswith(".txt"):
            assert (ROOT / word).is_file(), word
