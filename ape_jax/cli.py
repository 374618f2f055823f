"""`ape-jax COMMAND ...`, which is `python -m ape_jax COMMAND ...`: lists the commands, starts one.

The table of commands is `terminal.catalogue.COMMANDS`.
"""

from __future__ import annotations

import difflib
import runpy
import sys

import ape_jax
from ape_jax.errors import UserError
from ape_jax.terminal import help, stdout
from ape_jax.terminal.catalogue import COMMANDS


def main() -> None:
    """Starts the command that the first word names, as `python -m` would start its module."""
    try:
        with stdout.written():
            _start()
    except KeyboardInterrupt:  # While a command is imported; later it says so itself.
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _start() -> None:
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        print(help.overview())
    elif name == "--version":
        print(f"ape_jax {ape_jax.__version__}")
    elif help.asks_for_keys([name]):
        _print_keys([name, *rest])
    elif name in COMMANDS:
        sys.argv[:] = [f"ape-jax {name}", *rest]
        runpy.run_module(COMMANDS[name].module, run_name="__main__", alter_sys=True)
    else:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(COMMANDS)}"
        print(f"error: no command {name!r}; {hint}", file=sys.stderr)
        sys.exit(2)


def _print_keys(words: list[str]) -> None:
    try:
        print(help.keys(words))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
