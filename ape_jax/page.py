"""A page to look at: `python -m ape_jax.page --workdir DIR [--index INDEX]`."""

from __future__ import annotations

from absl import flags

from ape_jax.pages import browser, desk
from ape_jax.terminal import command

_INDEX = flags.DEFINE_string("index", "", "An index of the same run, to be searched as well.")
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Where to listen; by default this machine alone.")
_PORT = flags.DEFINE_integer("port", 7860, "The port to listen at.")


def main() -> None:
    """Shows the page until it is interrupted."""
    directory = command.workdir()
    command.refuse_config()
    browser.check(_HOST.value, _PORT.value)
    browser.serve(desk.Desk(directory, _INDEX.value), _HOST.value, _PORT.value)


if __name__ == "__main__":
    command.run(main)
