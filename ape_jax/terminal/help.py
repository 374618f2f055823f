"""What `--help` prints: the list of commands, and a page a command with its own flags."""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Sequence

from absl import flags

from ape_jax.terminal.catalogue import COMMANDS, Command

_WIDTH = 96
_KEYS = "--help-config"
EXIT_CODES = {
    0: "done, or ended by SIGTERM or SIGHUP, which a line says, and what is kept",
    1: "something to put right, said in one sentence",
    2: "a command or flag that does not exist, or a value that a flag does not take",
    70: "another process of the run was lost; the same command goes on",
    130: "interrupted from the keyboard",
}
"""What the exit status of every command means."""


def overview() -> str:
    """All commands by group, each with its line."""
    groups: dict[str, list[str]] = {}
    for name, command in COMMANDS.items():
        groups.setdefault(command.group, []).append(f"  {name:10}{command.does}")
    lists = "\n\n".join(f"{group}:\n" + "\n".join(lines) for group, lines in groups.items())
    return (
        "ape-jax aligns a vision tower and a text tower that were trained apart.\n\n"
        f"{lists}\n\n"
        "ape-jax COMMAND --help shows a command's flags and two examples.\n"
        "ape-jax --help-config [PATTERN] lists the keys of a run's config."
    )


def page(name: str, own: flags.FlagValues) -> str:
    """The page of one command: what it does, two examples, its flags, exit codes.

    Args:
      name: of the command.
      own: its flags.
    """
    command = COMMANDS[name]
    parts = [f"ape-jax {name} {command.does}.", _examples(command)]
    if list(own) != ["verbose"]:
        parts.append(_flags(own))
    if "config" in own:
        parts.append(
            "--config.KEY=VALUE sets one key of the config; --help-config [PATTERN] lists the keys."
        )
    codes = "\n".join(f"  {code:<4}{meaning}" for code, meaning in EXIT_CODES.items())
    parts.append(f"Exit codes:\n{codes}")
    return "\n\n".join(parts)


def asks_for_keys(words: Sequence[str]) -> bool:
    """Whether `--help-config` is on the command line."""
    return any(word.partition("=")[0] == _KEYS for word in words)


def keys(words: Sequence[str]) -> str:
    """The config keys that `--help-config PATTERN` or `--help-config=PATTERN` asks for.

    Args:
      words: the command line.

    Raises:
      UserError: where no key matches.
    """
    place = next(i for i, word in enumerate(words) if word.partition("=")[0] == _KEYS)
    _, equals, pattern = words[place].partition("=")
    following = words[place + 1 : place + 2]
    if not equals and following and not following[0].startswith("-"):
        (pattern,) = following
    # By name: it lists what rooms above this one have registered.
    return importlib.import_module("ape_jax.commands.keys").text(pattern)


def _examples(command: Command) -> str:
    return "Examples:\n" + "\n".join(f"  {example}" for example in command.examples)


def _flags(own: flags.FlagValues) -> str:
    found = {own[name].name: own[name] for name in own}
    return "Flags:\n" + "\n".join(_flag(flag) for flag in found.values())


def _flag(flag: flags.Flag) -> str:
    value = "" if flag.boolean else f" {_value(flag)}"
    negated = "[no]" if flag.boolean and flag.default else ""
    default = "" if flag.default in ("", None, [], False, True) else f" (default {flag.default})"
    lead = f"  {'-' if len(flag.name) == 1 else '--'}{negated}{flag.name}{value}"
    gap = "\n" + " " * 22 if len(lead) > 20 else " " * (22 - len(lead))
    # absl writes choices before the help, and a sentence after that of flags that may be repeated.
    said = flag.help.partition(";\n")[0].removeprefix(f"<{_value(flag)}>: ")
    text = textwrap.fill(f"{said}{default}", _WIDTH - 22).replace("\n", "\n" + " " * 22)
    return f"{lead}{gap}{text}"


def _value(flag: flags.Flag) -> str:
    choices = getattr(flag.parser, "enum_values", None)
    if choices:
        return "|".join(choices)
    kind = flag.flag_type()
    return "N" if kind in ("int", "float") else {"workdir": "DIR"}.get(flag.name, "TEXT")
