"""What all commands share: reading the command line, one sentence for an error, the exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from absl import app
from absl import flags as absl_flags

from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.config import Config
from ape_jax.errors import UserError
from ape_jax.parallel import ends, signals
from ape_jax.parallel.actors import RayCluster
from ape_jax.terminal import catalogue, flags, help, hints, stdout

C = TypeVar("C", bound=Config)


def run(main: Callable[[], None], argv: Sequence[str] | None = None) -> None:
    """Parses flags, joins the cluster where there is one, runs `main` and ends the process.

    Prints the command's page and ends where `--help` is asked for, without waiting for JAX.

    Args:
      main: the command; it reads its flags, which are `FLAGS` in its module. `BARE` there is the
        flag that a word without a flag stands for, if there is one.
      argv: the command line; by default the process's, which is then the command's own.

    The exit code is one of `help.EXIT_CODES`. A `UserError` is printed alone, in one line.
    """
    with stdout.written():
        _run(main, argv)


def _run(main: Callable[[], None], argv: Sequence[str] | None) -> None:
    alone = argv is None
    words = list(sys.argv if argv is None else argv)
    own: absl_flags.FlagValues = sys.modules[main.__module__].FLAGS
    if {"--help", "-h", "--helpfull", "--helpshort"} & set(words[1:]):
        print(help.page(_name(main), own))
        sys.exit(0)
    if "config" in own and help.asks_for_keys(words):
        try:
            print(help.keys(words))
            sys.exit(0)
        except UserError as error:
            _refuse(str(error), 1)

    if alone or main.__module__ == "__main__":
        signals.watch(catalogue.kept(_name(main)))

    def call(rest: Sequence[str]) -> None:
        # Not before: --help must not wait for JAX.
        try:
            from ape_jax.terminal import session
        except KeyboardInterrupt:
            ends.at_once("interrupted", 130)

        session.run(main, _name(main), alone)

    bare: str | None = getattr(sys.modules[main.__module__], "BARE", None)
    app.run(call, argv=words, flags_parser=lambda words: _parse(words, own, _name(main), bare))


def _name(main: Callable[[], None]) -> str:
    """The name of the command, also where its module is run by `python -m`."""
    module = main.__module__
    if module == "__main__":
        module = sys.modules[module].__spec__.name
    return catalogue.named(module) or module


def _parse(
    words: Sequence[str], own: absl_flags.FlagValues, name: str, bare: str | None
) -> list[str]:
    try:
        rest = flags.parse(words, own)
        if bare and len(rest) == 2:
            own[bare].value = rest.pop()
        if len(rest) > 1:
            raise UserError(f"unexpected argument {rest[1]!r}; flags are written --name=value")
        return rest
    except UserError as error:
        _refuse(str(error), 1)
    except absl_flags.UnrecognizedFlagError as error:
        value = _value_after(words, error.flagname)
        _refuse(hints.unknown_flag(error.flagname, value, name, own), 2)
    except absl_flags.Error as error:
        _refuse(" ".join(str(error).split()), 2)


def _value_after(words: Sequence[str], flag: str) -> str:
    """What was written for a flag, `--flag=value` or `--flag value`; "" if nothing."""
    for word, following in zip(words, [*words[1:], ""]):
        name, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and name == flag:
            return value if equals or following.startswith("-") else following
    return ""


def _refuse(sentence: str, code: int) -> NoReturn:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(code)


def output(found: Mapping[str, Any], table: str) -> None:
    """Prints what a command found: the table, or with `--json` one JSON object and nothing else.

    Args:
      found: what `--json` prints.
      table: what people read.
    """
    print(json.dumps(found, sort_keys=True) if flags.JSON.value else table)


def say(line: str) -> None:
    """Prints a line for people: on stderr where `--json` keeps stdout for a script."""
    print(line, file=sys.stderr if flags.JSON.value else sys.stdout)


def workdir() -> str:
    """The directory of `--workdir`.

    Raises:
      UserError: where there is none.
    """
    if not flags.WORKDIR.value:
        raise UserError("--workdir: expected the directory of a run, found none")
    return flags.WORKDIR.value


def ray_cluster() -> RayCluster | None:
    """The Ray cluster of `--engine ray`, None where this process encodes.

    Raises:
      UserError: for flags of a Ray cluster without one, or in a process of a cluster of JAX.
    """
    if flags.ENGINE.value != "ray":
        for name, flag in (("--address", flags.ADDRESS), ("--actors", flags.ACTORS)):
            if flag.value:
                raise UserError(
                    f"{name}: found {flag.value!r} without a Ray cluster; write "
                    "--engine=ray as well"
                )
        return None
    from ape_jax.parallel import hosts

    if hosts.in_cluster():
        raise UserError(
            "--engine: this process is one of several that JAX connects, which share the work "
            "themselves; start one process alone, or leave --engine=ray out"
        )
    import jax

    # The accelerators are the actors'.
    jax.config.update("jax_platforms", "cpu")
    return RayCluster(address=flags.ADDRESS.value, actors=flags.ACTORS.value)


def load_config(kind: type[C] = Config) -> C:
    """The checked config of `--config NAME[:ARG]` with the command line's overrides applied.

    Args:
      kind: the class of config that the command takes.

    Raises:
      UserError: for a recipe or file that is missing or fails, or a wrong key or value.
    """
    spec = flags.CONFIG.value
    if not spec:
        raise UserError(
            "--config: expected a recipe such as few_pairs or a config file, found none"
        )
    config = recipes.read(spec)
    config_lib.override(config, flags.overrides, kind)
    return config_lib.resolve(config, kind)
