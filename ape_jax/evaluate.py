"""Evaluates a saved run: `python -m ape_jax.evaluate --workdir DIR [--task T --data D]`."""

from __future__ import annotations

import json

from absl import flags

from ape_jax import command, inference
from ape_jax.data.labelled import open_labelled
from ape_jax.data.vectors import open_source
from ape_jax.errors import UserError
from ape_jax.evaluators import prompts, report, tasks

_TASK = flags.DEFINE_enum("task", "retrieval", ["retrieval", "zeroshot"], "What to evaluate.")
_DATA = flags.DEFINE_string("data", "", "Pairs or labelled images; '' takes the run's data.eval.")
_CLASSNAMES = flags.DEFINE_string("classnames", "", "zeroshot: a file with one class name a line.")
_TEMPLATES = flags.DEFINE_string("templates", "simple", "zeroshot: none, simple, openai or a file.")


def main() -> None:
    """Prints the table and, as the last line of stdout, one JSON object."""
    command.workdir()  # Named before anything is opened.
    command.refuse_config()
    metrics = _retrieval() if _TASK.value == "retrieval" else _zeroshot()
    print(json.dumps(metrics, sort_keys=True))


def _retrieval() -> dict[str, float]:
    # The pairs are opened first: they fail in no time, a model takes seconds to load.
    given = {"data": open_source(_DATA.value, key="--data")} if _DATA.value else None
    model = inference.load(command.workdir())
    sets = given or {
        name: open_source(spec, key=f"data.eval.{name}")
        for name, spec in model.config.data.eval.items()
    }
    if not sets:
        raise UserError("--data: the run has no data.eval; name the pairs to evaluate on")
    if model.config.data.on_error == "skip":
        sets = {name: model.leave_out_unreadable(pairs, name) for name, pairs in sets.items()}
    metrics = {
        f"eval/{name}/{key}": value
        for name, pairs in sets.items()
        for key, value in tasks.evaluate_retrieval(model, pairs).items()
    }
    print(report.retrieval_table(metrics))
    return metrics


def _zeroshot() -> dict[str, float]:
    if not _DATA.value:
        raise UserError("--data: zero-shot needs labelled images, found none")
    names = (
        prompts.read_classnames(_CLASSNAMES.value, key="--classnames")
        if _CLASSNAMES.value
        else None
    )
    labelled = open_labelled(_DATA.value, names, key="--data")
    templates = prompts.resolve_templates(_TEMPLATES.value, key="--templates")
    model = inference.load(command.workdir())
    metrics = tasks.evaluate_zeroshot(model, labelled, templates)
    head = ["zero-shot", "classes", "images", "top-1", "top-5"]
    counts = [str(len(labelled.classnames)), str(len(labelled))]
    print(
        report.markdown(
            head, [["data", *counts, *(report.cell(k, metrics[k]) for k in ("top1", "top5"))]]
        )
    )
    return {f"eval/zeroshot/{key}": value for key, value in metrics.items()}


if __name__ == "__main__":
    command.run(main)
