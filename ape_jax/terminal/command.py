"""What all commands share: reading the command line, one sentence for an error, the exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

import jax
from absl import app, flags, logging

from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.config import Config
from ape_jax.errors import Preempted, UserError
from ape_jax.parallel import hosts
from ape_jax.storage import cache_folder

C = TypeVar("C", bound=Config)

_CONFIG = flags.DEFINE_string(
    "config", "", "RECIPE[:ARGS] or FILE.py[:ARGS]; --config.key=value sets one key."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", "", "Directory of the run; the same one again resumes it."
)
_OVERRIDE = "--config."
_overrides: dict[str, str] = {}
_AGAIN = "started again, the same command goes on from the last checkpoint"


def run(main: Callable[[], None], argv: Sequence[str] | None = None) -> None:
    """Parses flags, joins the cluster where there is one, runs `main` and ends the process.

    Args:
      main: the command; it reads its flags.
      argv: the command line; by default the process's, which is then the command's own.

    The exit code is 0 (also after SIGTERM, once a training's state is saved), 1 after a `UserError`
    (printed alone, in one line), 2 for flags that absl does not know, 70 where another process of
    the run was lost, or 130 after an interrupt.
    """

    alone = argv is None

    def guarded(rest: Sequence[str]) -> None:
        try:
            if len(rest) > 1:
                raise UserError(f"unexpected argument {rest[1]!r}; flags are written --name=value")
            # After absl's own set-up. Orbax logs a page for every checkpoint, and a page for every
            # thread of one that fails, besides raising; --verbosity brings both back.
            if not flags.FLAGS["verbosity"].present:
                logging.set_verbosity(logging.FATAL)
            _keep_compiled_programs()
            with hosts.cluster():
                try:
                    main()
                except Preempted as notice:
                    print(notice, file=sys.stderr)
        except UserError as error:
            _end(f"error: {error}", 1, alone)
        except KeyboardInterrupt:
            _end("interrupted", 130, alone)
        except Exception as error:
            if hosts.is_lost(error):
                reason = str(error).splitlines()[0]
                _end(f"error: another process of this run was lost ({reason}); {_AGAIN}", 70, alone)
            if jax.distributed.is_initialized():
                _end(traceback.format_exc(), 70, alone)
            raise

    app.run(guarded, argv=argv, flags_parser=_parse_flags)


def _end(message: str, code: int, alone: bool) -> NoReturn:
    """Says what is wrong and ends the process with that code, at once if it is this command's own.

    In a cluster an orderly end would wait for processes that wait for this one; after a full disk,
    threads that write would add their tracebacks to the sentence.
    """
    sys.stdout.flush()
    print(message, file=sys.stderr, flush=True)
    if alone:
        os._exit(code)
    sys.exit(code)


def refuse_config() -> None:
    """For commands that take the config of the work directory.

    Raises:
      UserError: where `--config` or one of its keys was given.
    """
    if _CONFIG.value or _overrides:
        raise UserError("--config: this command takes the config of --workdir; leave it out")


def _keep_compiled_programs() -> None:
    """Compiled programs are kept between processes, unless the user keeps them elsewhere."""
    if jax.config.jax_compilation_cache_dir is None:
        try:
            directory = cache_folder.cache_dir() / "xla"
            directory.mkdir(parents=True, exist_ok=True)
        except (UserError, OSError):
            return  # It only saves time.
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def workdir(otherwise: str = "") -> str:
    """The directory of `--workdir`.

    Args:
      otherwise: what is taken where none is given.

    Raises:
      UserError: where there is neither.
    """
    if not (_WORKDIR.value or otherwise):
        raise UserError("--workdir: expected the directory of a run, found none")
    return _WORKDIR.value or otherwise


def load_config(kind: type[C] = Config) -> C:
    """The checked config of `--config NAME[:ARG]` with the command line's overrides applied.

    Args:
      kind: the class of config that the command takes.

    Raises:
      UserError: for a recipe or file that is missing or fails, or a wrong key or value.
    """
    spec = _CONFIG.value
    if not spec:
        raise UserError(
            "--config: expected a recipe such as few_pairs or a config file, found none"
        )
    config = recipes.read(spec)
    config_lib.override(config, _overrides, kind)
    return config_lib.resolve(config, kind)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    """Takes `--config.key=value` (or `--config.key value`) out of argv; absl parses the rest."""
    _overrides.clear()
    flags.FLAGS.unparse_flags()
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if word.startswith(_OVERRIDE):
            key, equals, value = word[len(_OVERRIDE) :].partition("=")
            _overrides[key] = value if equals else next(words, "")
        else:
            rest.append(word)
    try:
        return flags.FLAGS(rest)
    except flags.Error as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
