"""Puts a model on the Hugging Face hub: `ape-jax push --export OUT --repo USER/NAME`."""

from __future__ import annotations

from absl import flags

from ape_jax.terminal import card_flags, command
from ape_jax.terminal.flags import WORKDIR, flag_values

FLAGS = flag_values("workdir")
_EXPORT = flags.DEFINE_string("export", "", "A directory of ape-jax export.", flag_values=FLAGS)
_REPO = flags.DEFINE_string("repo", "", "USER/NAME on the hub.", flag_values=FLAGS)
_FORMAT = flags.DEFINE_string(
    "format", "torch", "With --workdir: the format that it is exported in.", flag_values=FLAGS
)
_PRIVATE = flags.DEFINE_bool("private", False, "Make a new repository private.", flag_values=FLAGS)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "List what would be uploaded, and send nothing.", flag_values=FLAGS
)
card_flags.add(FLAGS)


def main() -> None:
    """Lists the files and their sizes, then uploads them in one commit."""
    from ape_jax.commands import push

    push.push(
        push.Request(
            export=_EXPORT.value,
            workdir=WORKDIR.value,
            format=_FORMAT.value,
            repo=_REPO.value,
            private=_PRIVATE.value,
            dry_run=_DRY_RUN.value,
            card=card_flags.values(FLAGS),
        )
    )


if __name__ == "__main__":
    command.run(main)
