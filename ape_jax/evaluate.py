"""Evaluates a saved run: `ape-jax evaluate --workdir DIR [--task T --data D]`."""

from __future__ import annotations

from absl import flags

from ape_jax.errors import UserError
from ape_jax.terminal import command
from ape_jax.terminal.flags import DIM, flag_values

FLAGS = flag_values("workdir", "json", "dim")
_TASK = flags.DEFINE_enum(
    "task",
    "retrieval",
    ["retrieval", "zeroshot", "conservation"],
    "What to evaluate.",
    flag_values=FLAGS,
)
_DATA = flags.DEFINE_string(
    "data",
    "",
    "Pairs or labelled images; the run's data.eval where it is left out.",
    flag_values=FLAGS,
)
_CLASSNAMES = flags.DEFINE_string(
    "classnames",
    "",
    "zeroshot: a file with one name a line, imagenet or clip_benchmark:NAME.",
    flag_values=FLAGS,
)
_TEMPLATES = flags.DEFINE_string(
    "templates",
    "simple",
    "zeroshot: none, simple, openai, open_clip_simple, clip_benchmark:NAME or a file.",
    flag_values=FLAGS,
)


def main() -> None:
    """Prints a table of the figures."""
    if _TASK.value == "conservation" and DIM.value is not None:
        raise UserError("--dim: conservation compares the towers, whose features are not cut")
    workdir = command.workdir()  # Named before anything is opened.
    from ape_jax.commands import evaluate
    from ape_jax.parallel import hosts

    if _TASK.value == "retrieval":
        found = evaluate.retrieval(workdir, _DATA.value, DIM.value)
    elif _TASK.value == "zeroshot":
        names = _CLASSNAMES.value, _TEMPLATES.value
        found = evaluate.zeroshot(workdir, _DATA.value, *names, DIM.value)
    else:
        found = evaluate.conservation(workdir, _DATA.value)
    if hosts.is_first():
        command.output(*found)


if __name__ == "__main__":
    command.run(main)
