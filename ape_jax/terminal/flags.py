"""The flags of commands: each command has its own, apart from those of libraries.

absl keeps the flags of all modules in one place, where two commands cannot both have `--out` and
`--help` lists those of every library. A command's flags are a `FlagValues` of their own; the
command line is read with them and absl's own (`--verbosity`) together.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from ape_jax.errors import UserError

_SHARED = flags.FlagValues()
CONFIG = flags.DEFINE_string(
    "config",
    "",
    "RECIPE[:ARGS] or FILE.py[:ARGS]; --config.KEY=VALUE sets one key.",
    flag_values=_SHARED,
)
WORKDIR = flags.DEFINE_string(
    "workdir",
    "",
    "Directory of the run; a training that is started again in it goes on.",
    flag_values=_SHARED,
)
JSON = flags.DEFINE_bool(
    "json", False, "Print one JSON object in the place of tables.", flag_values=_SHARED
)
VERBOSE = flags.DEFINE_bool(
    "verbose", False, "Print full tables, and what libraries log.", flag_values=_SHARED
)
ENGINE = flags.DEFINE_enum(
    "engine",
    "process",
    ["process", "ray"],
    "What encodes: this process, with others of a cluster of JAX, or actors on a Ray cluster.",
    flag_values=_SHARED,
)
ADDRESS = flags.DEFINE_string(
    "address",
    "",
    "Of a Ray cluster: auto, HOST:PORT or ray://HOST:PORT. None starts one on this machine.",
    flag_values=_SHARED,
)
ACTORS = flags.DEFINE_integer(
    "actors",
    0,
    "How many actors on Ray; 0 for one a GPU or, without any, one for every four cores.",
    0,
    flag_values=_SHARED,
)
DIM = flags.DEFINE_integer(
    "dim",
    None,
    "First numbers of an embedding that are used, at unit length again; all where it is left out.",
    1,
    flag_values=_SHARED,
)

OVERRIDE = "--config."
overrides: dict[str, str] = {}
"""Keys of the config that the command line sets, as texts."""


def flag_values(*shared: str) -> flags.FlagValues:
    """Flags of a command, to which it adds its own with `flag_values=FLAGS`.

    Example:
      FLAGS = flag_values("workdir", "json")
      _DATA = flags.DEFINE_string("data", "", "Pairs.", flag_values=FLAGS)

    Args:
      *shared: those of `config`, `workdir`, `json`, `engine`, `address`, `actors` and `dim` that
        the command takes.
    """
    own = flags.FlagValues()
    for name in (*shared, "verbose"):
        own[name] = _SHARED[name]
    return own


def reset() -> None:
    """Puts the flags that commands share back to their defaults."""
    overrides.clear()
    _SHARED.unparse_flags()
    _SHARED.mark_as_parsed()


def parse(argv: Sequence[str], own: flags.FlagValues) -> list[str]:
    """Reads a command line; values are in the flags and in `overrides` afterwards.

    Args:
      argv: the program's name and its words; `--config.key=value` and `--config.key value` both.
      own: flags of the command.

    Returns:
      The words that are no flags, the program's name first.

    Raises:
      UserError: for a config where the command takes none.
      absl.flags.Error: for an unknown flag or a value that a flag does not take.
    """
    reset()
    known = flags.FlagValues()
    for values in (own, flags.FLAGS):
        for name in values:
            values[name].unparse()
            if name == values[name].name and name not in known:  # Not under its short name.
                known[name] = values[name]
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if word.partition("=")[0] == "--config" or word.startswith(OVERRIDE):
            if "config" not in own:
                raise UserError(
                    "--config: this command takes the config of --workdir; leave it out"
                )
        if word.startswith(OVERRIDE):
            key, equals, value = word[len(OVERRIDE) :].partition("=")
            overrides[key] = value if equals else next(words, "")
        else:
            rest.append(word)
    try:
        return known(rest)
    finally:
        own.mark_as_parsed()
        flags.FLAGS.mark_as_parsed()


def absl_verbosity_is_set() -> bool:
    """Whether absl's own `--verbosity` is on the command line."""
    return bool(flags.FLAGS["verbosity"].present)


def is_verbose() -> bool:
    """Whether the command was asked for full tables; False where no command is running."""
    return _SHARED.is_parsed() and VERBOSE.value
