"""What a run leaves for a script to read."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ape_jax.features.cut import Cut
from ape_jax.runs.directory import workdir
from ape_jax.training import run as run_lib
from ape_jax.training.notices.record import Notice


def write(
    run: run_lib.Run,
    path: pathlib.Path,
    step: int,
    digests: Mapping[str, str],
    metrics: Mapping[str, float],
    seconds: float,
    left_out: Mapping[str, Mapping[str, int]],
    skipped: int = 0,
    best_step: int | None = None,
    notices: Sequence[Notice] = (),
    cuts: Mapping[str, Cut] | None = None,
) -> dict[str, Any]:
    """Writes `summary.json` and returns what stands in it.

    Args:
      run: the run.
      path: its work directory.
      step: steps taken.
      digests: of its pairs.
      metrics: of the last evaluation.
      seconds: that this start took.
      left_out: how many rows and images are not used, by data set and kind.
      skipped: images that could not be read in a step.
      best_step: of the state that is used, None for the last.
      notices: what was noticed.
      cuts: captions that the text tower cuts, by data set.
    """
    trained, frozen = run_lib.parameter_counts(run.aligned)
    solved = run.aligned.solved
    summary = {
        "step": step,
        **({} if best_step is None else {"best_step": best_step}),
        "pairs": len(run.dataset.pairs),
        "images_skipped_in_step": skipped,
        **(
            {"left_out": {name: dict(kinds) for name, kinds in left_out.items()}}
            if left_out
            else {}
        ),
        **({"notices": [dataclasses.asdict(notice) for notice in notices]} if notices else {}),
        **({"captions_cut": _plain(cuts)} if cuts else {}),
        "digests": dict(digests),
        "parameters_trained": trained,
        "parameters_frozen": frozen,
        "seconds_last_start": round(seconds, 3),
        **({} if solved is None else {"closed_form": dict(solved)}),
        **metrics,
        **_languages(run),
        **{
            f"chance/{name}/{key}": value
            for task in run.tasks
            for name, found in task.chance.items()
            for key, value in found.items()
        },
    }
    workdir.write_summary(path, summary)
    return summary


def _languages(run: run_lib.Run) -> dict[str, Any]:
    """Captions of each language in training, and the languages that only evaluations have."""
    found, known = run.dataset.captions.spoken, run.aligned.model.languages
    if found is None or known is None:
        return {}
    counts = dict(zip(found.names, np.bincount(found.index, minlength=len(found.names)).tolist()))
    trained = {name: count for name, count in counts.items() if name in dict(known.names)}
    sets = [task.dataset.captions.spoken for task in run.tasks]
    met = sorted({name for spoken in sets if spoken is not None for name in spoken.names})
    unseen = [name for name in met if name not in trained]
    return {"languages": {"trained": trained, "unseen": unseen}}


def _plain(cuts: Mapping[str, Cut]) -> dict[str, dict[str, int]]:
    return {name: dataclasses.asdict(cut) for name, cut in cuts.items()}
