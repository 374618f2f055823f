"""Writes DIR/report.html: `ape-jax report --workdir DIR [--labelled FILE]`."""

from __future__ import annotations

from absl import flags

from ape_jax.terminal import command
from ape_jax.terminal.flags import flag_values

FLAGS = flag_values("workdir")
_LABELLED = flags.DEFINE_string(
    "labelled", "", "Labelled images, for a confusion matrix.", flag_values=FLAGS
)
_CLASSNAMES = flags.DEFINE_string(
    "classnames",
    "",
    "A file with one class name a line, imagenet or clip_benchmark:NAME.",
    flag_values=FLAGS,
)
_TEMPLATES = flags.DEFINE_string(
    "templates",
    "simple",
    "none, simple, openai, open_clip_simple, clip_benchmark:NAME or a file.",
    flag_values=FLAGS,
)


def main() -> None:
    """Writes the page and says where it is."""
    directory = command.workdir()
    from ape_jax import pages
    from ape_jax.evaluators import prompts, tasks
    from ape_jax.runs.reading import reading_of

    labelled = None
    if _LABELLED.value:
        labelled = tasks.open_classes(
            _LABELLED.value, _CLASSNAMES.value, key="--labelled", reading=reading_of(directory)
        )
    templates = prompts.resolve_templates(_TEMPLATES.value, key="--templates")
    print(f"the report is in {pages.write(directory, labelled, templates)}")


if __name__ == "__main__":
    command.run(main)
