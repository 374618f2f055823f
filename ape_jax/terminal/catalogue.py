"""The commands: name, module, what each does, and two examples. One entry a command.

`ape-jax` and `python -m ape_jax` list them; a command's own `--help` shows its entry. A command is
a module that defines `FLAGS` (`terminal.flags.flag_values`) and `main`, imports nothing heavy
before `main` is called, and ends with `command.run(main)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

_RECIPE = "--config few_pairs:image=TOWER,text=TOWER,pairs=FILE"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """One command.

    Attributes:
      module: what runs, also by `python -m`.
      does: one line that begins with a verb.
      examples: two command lines.
      kept: what is said of the work where a signal, or the loss of another process, ends it.
      group: heading in the list of commands.
    """

    module: str
    does: str
    examples: tuple[str, str]
    kept: str
    group: str


_MAKE, _USE, _JUDGE = "Make a model", "Use a model", "Judge and plan"

COMMANDS: Mapping[str, Command] = {
    "train": Command(
        module="ape_jax.main",
        does="trains a model on image-caption pairs, evaluates it and writes a report",
        examples=(
            f"ape-jax train {_RECIPE} --workdir DIR",
            "ape-jax train --config ape:runlocal --workdir DIR --config.optim.lr=3e-4",
        ),
        kept="features and the last checkpoint are kept; the same command goes on from there",
        group=_MAKE,
    ),
    "pairs": Command(
        module="ape_jax.pairs",
        does="says what is made of pairs: counts, columns, samples, broken rows",
        examples=(
            "ape-jax pairs pairs.csv",
            "ape-jax pairs a-{000..003}.tar --html look.html --text hf:ORG/NAME",
        ),
        kept="nothing was written",
        group=_MAKE,
    ),
    "curate": Command(
        module="ape_jax.curate",
        does="chooses the pairs that serve names, images or pairs, and says what was left out",
        examples=(
            f"ape-jax curate {_RECIPE} --target names.txt --count 900 --out new.jsonl",
            f"ape-jax curate {_RECIPE} --target FOLDER --count 900 --out new.jsonl --html new.html",
        ),
        kept="features that are encoded are kept; the same command begins again from there",
        group=_MAKE,
    ),
    "extract": Command(
        module="ape_jax.extract",
        does="fills the feature cache for a run and stops",
        examples=(
            f"ape-jax extract {_RECIPE} --workdir DIR",
            f"ape-jax extract {_RECIPE} --workdir DIR --config.cache.dir=FOLDER",
        ),
        kept="shards that are finished are kept; the same command goes on from there",
        group=_MAKE,
    ),
    "layers": Command(
        module="ape_jax.layers",
        does="compares the layers of both towers on the pairs, and says which to read",
        examples=(
            f"ape-jax layers {_RECIPE} --workdir DIR",
            f"ape-jax layers {_RECIPE} --workdir DIR --plots",
        ),
        kept="features are kept; the same command begins again with them",
        group=_MAKE,
    ),
    "study": Command(
        module="ape_jax.study",
        does="compares methods over seeds and numbers of pairs",
        examples=(
            "ape-jax study --config demo --workdir DIR",
            "ape-jax study --config demo --workdir DIR --config.study.seeds=1 --plots",
        ),
        kept="finished runs and checkpoints are kept; the same command goes on from there",
        group=_MAKE,
    ),
    "evaluate": Command(
        module="ape_jax.evaluate",
        does="measures retrieval, zero-shot classification or what tuning has changed",
        examples=(
            "ape-jax evaluate --workdir DIR --data pairs.csv",
            "ape-jax evaluate --workdir DIR --task zeroshot --data labelled.csv --json",
        ),
        kept="it writes nothing; the same command begins again",
        group=_USE,
    ),
    "index": Command(
        module="ape_jax.index",
        does="encodes images into an index, and finds images by text or by image",
        examples=(
            "ape-jax index --workdir DIR --images FOLDER --out INDEX",
            'ape-jax index --index INDEX --query "something sweet" --to vectors.parquet',
        ),
        kept="an index that was there is as it was; the same command begins again",
        group=_USE,
    ),
    "export": Command(
        module="ape_jax.export",
        does="writes a model for PyTorch, ONNX, StableHLO or ape_jax, and verifies it",
        examples=(
            "ape-jax export --workdir DIR --out OUT --format torch",
            "ape-jax export --workdir DIR --out OUT --format onnx --inputs pairs.csv",
        ),
        kept="nothing is left of the new directory; the same command begins again",
        group=_USE,
    ),
    "push": Command(
        module="ape_jax.push",
        does="puts an exported model on the Hugging Face hub, with its model card",
        examples=(
            "ape-jax push --export OUT --repo USER/NAME --license cc-by-4.0 --language lv",
            "ape-jax push --workdir DIR --repo USER/NAME --private --dry_run",
        ),
        kept="what was not sent yet is missing on the hub; the same command sends it",
        group=_USE,
    ),
    "report": Command(
        module="ape_jax.report",
        does="writes report.html: figures, curves, pictures",
        examples=(
            "ape-jax report --workdir DIR",
            "ape-jax report --workdir DIR --labelled labelled.csv",
        ),
        kept="a report that was there is as it was; the same command begins again",
        group=_USE,
    ),
    "page": Command(
        module="ape_jax.page",
        does="serves a page to try a model in the browser",
        examples=(
            "ape-jax page --workdir DIR",
            "ape-jax page --workdir DIR --index INDEX --port 7860",
        ),
        kept="the page has ended",
        group=_USE,
    ),
    "judge": Command(
        module="ape_jax.judge",
        does="evaluates a model by clip_benchmark's own command",
        examples=(
            "ape-jax judge eval --model DIR --dataset wds/NAME --dataset_root FOLDER",
            "ape-jax judge eval --help",
        ),
        kept="results that clip_benchmark has written are kept; the same command begins again",
        group=_JUDGE,
    ),
    "plan": Command(
        module="ape_jax.plan",
        does="says what a run needs on TPUs or GPUs that are not here",
        examples=(
            f"ape-jax plan {_RECIPE} --topology v5e:4x4",
            f"ape-jax plan {_RECIPE} --topology h100:8 --search",
        ),
        kept="nothing was written",
        group=_JUDGE,
    ),
    "towers": Command(
        module="ape_jax.towers.__main__",
        does="says what a tower is, how it is read, and how near it comes to its own library",
        examples=(
            "ape-jax towers hf:facebook/dinov2-small",
            "ape-jax towers DIR --kind text --check",
        ),
        kept="nothing was written",
        group=_JUDGE,
    ),
    "demo": Command(
        module="ape_jax.demo.__main__",
        does="fetches the demo's towers and pairs",
        examples=("ape-jax demo", "ape-jax demo --only minilm"),
        kept="what is finished is kept; the same command goes on",
        group=_MAKE,
    ),
}


def named(module: str) -> str | None:
    """The name of the command that a module runs, or None."""
    wanted = (module, f"{module}.__main__")
    return next((name for name, command in COMMANDS.items() if command.module in wanted), None)


def kept(name: str) -> str:
    """What is said of the work of a command that is ended before its time."""
    found = COMMANDS.get(name)
    return found.kept if found else "the same command begins again"
