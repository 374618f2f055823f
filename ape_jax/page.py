"""A page to look at: `ape-jax page --workdir DIR [--index INDEX]`."""

from __future__ import annotations

from absl import flags

from ape_jax.terminal import command
from ape_jax.terminal.flags import flag_values

FLAGS = flag_values("workdir")
_INDEX = flags.DEFINE_string(
    "index", "", "An index of the same run, to be searched as well.", flag_values=FLAGS
)
_HOST = flags.DEFINE_string(
    "host",
    "127.0.0.1",
    "Where to listen; other machines reach the page only if you write their network.",
    flag_values=FLAGS,
)
_ALLOW_HOST = flags.DEFINE_list(
    "allow_host",
    [],
    "Names under which a proxy shows the page, separated by commas; a browser that asks under "
    "another than these, this machine's and --host is refused.",
    flag_values=FLAGS,
)
_PORT = flags.DEFINE_integer("port", 7860, "The port to listen at.", flag_values=FLAGS)


def main() -> None:
    """Shows the page until it is interrupted."""
    directory = command.workdir()
    from ape_jax.pages.served import browser, desk, hosts

    host, port = _HOST.value, _PORT.value
    known = hosts.Hosts(host, port, _ALLOW_HOST.value)
    browser.check(host, port)
    browser.serve(desk.Desk(directory, _INDEX.value), host, port, known)


if __name__ == "__main__":
    command.run(main)
