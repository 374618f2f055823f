"""Evaluates a saved run: `python -m ape_jax.evaluate --workdir DIR [--task T --data D]`."""

from __future__ import annotations

import json

from absl import flags

from ape_jax.data.pairs import Pairs
from ape_jax.data.specs import open_pairs
from ape_jax.errors import UserError
from ape_jax.evaluators import conservation, prompts, tasks
from ape_jax.runs import aligner
from ape_jax.runs.aligner import Aligner
from ape_jax.runs.restore import before_and_after
from ape_jax.terminal import command
from ape_jax.terminal import tables as report

_TASK = flags.DEFINE_enum(
    "task", "retrieval", ["retrieval", "zeroshot", "conservation"], "What to evaluate."
)
_DATA = flags.DEFINE_string("data", "", "Pairs or labelled images; '' takes the run's data.eval.")
_CLASSNAMES = flags.DEFINE_string(
    "classnames", "", "zeroshot: a file with one name a line, imagenet or clip_benchmark:NAME."
)
_TEMPLATES = flags.DEFINE_string(
    "templates",
    "simple",
    "zeroshot: none, simple, openai, open_clip_simple, clip_benchmark:NAME or a file.",
)


def main() -> None:
    """Prints the table and, as the last line of stdout, one JSON object."""
    command.workdir()  # Named before anything is opened.
    command.refuse_config()
    tasks_by_name = {"retrieval": _retrieval, "zeroshot": _zeroshot, "conservation": _conservation}
    metrics = tasks_by_name[_TASK.value]()
    print(json.dumps(metrics, sort_keys=True))


def _retrieval() -> dict[str, float]:
    # The pairs are opened first: they fail in no time, a model takes seconds to load.
    given = _given()
    model = aligner.load(command.workdir())
    sets = given or _own_sets(model)
    if model.config.data.on_error == "skip":
        sets = {name: model.leave_out_unreadable(pairs, name) for name, pairs in sets.items()}
    metrics = {
        f"eval/{name}/{key}": value
        for name, pairs in sets.items()
        for key, value in tasks.evaluate_retrieval(model, pairs).items()
    }
    print(report.retrieval_table(metrics))
    return metrics


def _given() -> dict[str, Pairs]:
    return {"data": open_pairs(_DATA.value, key="--data")} if _DATA.value else {}


def _own_sets(model: Aligner) -> dict[str, Pairs]:
    specs = model.config.data.eval.items()
    if not specs:
        raise UserError("--data: the model has no data.eval; name the pairs to evaluate on")
    return {name: open_pairs(spec, key=f"data.eval.{name}") for name, spec in specs}


def _zeroshot() -> dict[str, float]:
    if not _DATA.value:
        raise UserError("--data: zero-shot needs labelled images, found none")
    labelled = tasks.open_classes(_DATA.value, _CLASSNAMES.value, key="--data")
    templates = prompts.resolve_templates(_TEMPLATES.value, key="--templates")
    model = aligner.load(command.workdir())
    metrics = tasks.evaluate_zeroshot(model, labelled, templates)
    head = ["zero-shot", "classes", "images", "top-1", "top-5"]
    counts = [str(len(labelled.classnames)), str(len(labelled))]
    print(
        report.markdown(
            head, [["data", *counts, *(report.cell(k, metrics[k]) for k in ("top1", "top5"))]]
        )
    )
    return {f"eval/zeroshot/{key}": value for key, value in metrics.items()}


def _conservation() -> dict[str, float]:
    given = _given()
    was, now, start = before_and_after(command.workdir())
    before, after = Aligner(was), Aligner(now)
    sets = given or _own_sets(after)
    found = {name: conservation.conservation(before, after, pairs) for name, pairs in sets.items()}
    head = ["conservation", "images, CKA", "texts, CKA", "texts, judgements"]
    print(report.markdown(head, [[n, *(f"{v:.3f}" for v in f.values())] for n, f in found.items()]))
    moved = conservation.movement(start, now.trainable)
    rows = [[side, group, f"{100 * value:.2f}"] for (side, group), value in moved.items()]
    nothing = "nothing that pretraining left was trained: the towers were frozen, or added to"
    print(report.markdown(["tower", "group", "moved, %"], rows) if rows else nothing)
    metrics = {f"eval/{n}/{key}": value for n, f in found.items() for key, value in f.items()}
    return metrics | {f"moved/{side}/{group}": v for (side, group), v in moved.items()}


if __name__ == "__main__":
    command.run(main)
