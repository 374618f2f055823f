"""Says what is made of pairs before anything is trained on them.

ape-jax pairs pairs.csv --html look.html
"""

from __future__ import annotations

from absl import flags

from ape_jax.errors import UserError
from ape_jax.terminal import command
from ape_jax.terminal.flags import flag_values

FLAGS = flag_values("json")
BARE = "data"
_DATA = flags.DEFINE_string(
    "data", "", "The pairs; the word may stand alone, without --data.", flag_values=FLAGS
)
_HTML = flags.DEFINE_string(
    "html", "", "A file to write a page with pictures to.", flag_values=FLAGS
)
_TEXT = flags.DEFINE_string(
    "text", "", "A text tower, to count tokens and the captions that it cuts.", flag_values=FLAGS
)
_VERIFY = flags.DEFINE_bool(
    "verify",
    False,
    "Read the source again, decode every image and compare all of them.",
    flag_values=FLAGS,
)
_COLUMNS = flags.DEFINE_multi_string(
    "columns",
    [],
    "Columns by name, image=NAME or captions=NAME,NAME; may be repeated.",
    flag_values=FLAGS,
)


def main() -> None:
    """Prints figures, samples and broken rows of pairs."""
    if not _DATA.value:
        raise UserError("expected pairs, such as pairs.csv or a-{000..003}.tar; found none")
    from ape_jax.commands import pairs

    asked = pairs.Asked(
        data=_DATA.value,
        html=_HTML.value,
        text=_TEXT.value,
        verify=_VERIFY.value,
        columns=_COLUMNS.value,
    )
    command.output(*pairs.look(asked))


if __name__ == "__main__":
    command.run(main)
