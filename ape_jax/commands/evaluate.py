"""The tasks of `ape-jax evaluate`: each gives its figures and a table of them."""

from __future__ import annotations

from ape_jax.data.pairs import Pairs
from ape_jax.data.specs import open_pairs
from ape_jax.errors import UserError
from ape_jax.evaluators import conservation as conservation_lib
from ape_jax.evaluators import prompts, tasks
from ape_jax.runs import encoder
from ape_jax.runs.checkpoints import agreed
from ape_jax.runs.directory import own_pairs
from ape_jax.runs.encoder import Encoder
from ape_jax.runs.reading import reading_of
from ape_jax.runs.restore import before_and_after
from ape_jax.terminal import tables

Found = tuple[dict[str, float], str]


def retrieval(workdir: str, data: str, dim: int | None = None) -> Found:
    """Retrieval in both directions, on `data` or on the run's own `data.eval`.

    Args:
      workdir: directory of a run or of a model.
      data: pairs, or "" for the run's own.
      dim: width of the embeddings, as `--dim`.

    Raises:
      UserError: for a run or pairs that cannot be read.
    """
    # The pairs are opened first: they fail in no time, a model takes seconds to load.
    named = _named(data, workdir)
    model = encoder.load(workdir, dim)
    sets = named or _own_sets(model, workdir)
    if model.config.data.on_error == "skip":
        sets = {name: model.leave_out_unreadable(pairs, name) for name, pairs in sets.items()}
    agreed.on_pairs({f"eval/{name}": pairs.digest for name, pairs in sets.items()})
    metrics: dict[str, float] = {}
    rows: set[str] = set()
    for name, pairs in sets.items():
        for kind, found in zip(
            ("eval", "chance"), tasks.evaluate_languages(model, pairs, name), strict=True
        ):
            rows |= found.keys() - {name}
            metrics |= {
                f"{kind}/{n}/{key}": x for n, each in found.items() for key, x in each.items()
            }
    unseen = sorted({row.rpartition(":")[2] for row in rows} - set(model.languages))
    return metrics, tables.retrieval_table({**metrics, "languages": {"unseen": unseen}})


def zeroshot(
    workdir: str, data: str, classnames: str, templates: str, dim: int | None = None
) -> Found:
    """Zero-shot classification of labelled images.

    Args:
      workdir: directory of a run or of a model.
      data: labelled images.
      classnames: as `--classnames`.
      templates: as `--templates`.
      dim: width of the embeddings, as `--dim`.

    Raises:
      UserError: for a run, images or names that cannot be read.
    """
    if not data:
        raise UserError("--data: zero-shot needs labelled images, found none")
    labelled = tasks.open_classes(data, classnames, key="--data", reading=reading_of(workdir))
    prompted = prompts.resolve_templates(templates, key="--templates")
    model = encoder.load(workdir, dim)
    if model.config.data.on_error == "skip":
        labelled = model.leave_out_unreadable(labelled, "--data")
    agreed.on_labelled(labelled, prompted)
    metrics = tasks.evaluate_zeroshot(model, labelled, prompted)
    head = ["zero-shot", "classes", "images", "top-1", "top-5"]
    counts = [str(len(labelled.classnames)), str(len(labelled))]
    row = ["data", *counts, *(tables.cell(key, metrics[key]) for key in ("top1", "top5"))]
    of = len(labelled.classnames)
    chance = ["chance", *counts, *(tables.cell(f"top{k}", min(1.0, k / of)) for k in (1, 5))]
    found = {f"eval/zeroshot/{key}": value for key, value in metrics.items()}
    return found, tables.markdown(head, [row, chance])


def conservation(workdir: str, data: str) -> Found:
    """What training has changed in the towers, and how far their parameters moved.

    Args:
      workdir: directory of a run.
      data: pairs, or "" for the run's own.

    Raises:
      UserError: for a run or pairs that cannot be read.
    """
    named = _named(data, workdir)
    was, now, start = before_and_after(workdir)
    before, after = Encoder(was), Encoder(now)
    sets = named or _own_sets(after, workdir)
    agreed.on_pairs({f"eval/{name}": pairs.digest for name, pairs in sets.items()})
    found = {
        name: conservation_lib.conservation(before, after, pairs) for name, pairs in sets.items()
    }
    head = ["conservation", "images, CKA", "texts, CKA", "texts, judgements"]
    kept = tables.markdown(head, [[n, *(f"{v:.3f}" for v in f.values())] for n, f in found.items()])
    moved = conservation_lib.movement(start, now.trainable)
    rows = [[side, group, f"{100 * value:.2f}"] for (side, group), value in moved.items()]
    nothing = "nothing that pretraining left was trained: the towers were frozen, or added to"
    table = tables.markdown(["tower", "group", "moved, %"], rows) if rows else nothing
    metrics = {f"eval/{n}/{key}": value for n, f in found.items() for key, value in f.items()}
    metrics |= {f"moved/{side}/{group}": v for (side, group), v in moved.items()}
    return metrics, f"{kept}\n{table}"


def _named(data: str, workdir: str) -> dict[str, Pairs]:
    return {"data": open_pairs(data, key="--data", reading=reading_of(workdir))} if data else {}


def _own_sets(model: Encoder, directory: str) -> dict[str, Pairs]:
    if not model.config.data.eval:
        raise UserError("--data: the model has no data.eval; name the pairs to evaluate on")
    return own_pairs.evaluation_sets(model.config, directory)
