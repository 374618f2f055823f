"""What a run would need on TPUs or GPUs that are not here.

python -m ape_jax.plan --config C --topology v5e:16x16
"""

from __future__ import annotations

import json
import sys

from absl import flags

from ape_jax.config import Config
from ape_jax.errors import UserError
from ape_jax.planner import estimate, report, targets
from ape_jax.planner.shapes import Captions
from ape_jax.terminal import command

_TOPOLOGY = flags.DEFINE_string(
    "topology", "", "TPU slice or GPUs, as in v5e:4x4, v5p:2x2x2 or h100:4x8."
)
_BATCH = flags.DEFINE_integer("batch", 0, "Global batch, in place of the config's.", 0)
_TOKENS = flags.DEFINE_float("tokens", 13.0, "Mean tokens a caption; COCO's have 13.", 1.0)
_LONGEST = flags.DEFINE_integer("longest", 64, "Tokens of the longest caption.", 1)
_PAIRS = flags.DEFINE_integer("pairs", 0, "Pairs of the data set, for the time to encode it.", 0)
_SEARCH = flags.DEFINE_bool("search", False, "Find the largest global batch that fits.")
_THOROUGH = flags.DEFINE_bool(
    "thorough", False, "Compile as for a run: memory to the byte, after minutes instead of seconds."
)
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object.")


def main() -> None:
    """Compiles what the flags describe and prints what it costs."""
    targets.leave_this_machine()
    config = command.load_config()
    where = targets.parse(_TOPOLOGY.value, thorough=_THOROUGH.value)
    if _BATCH.value:
        config = config.replace({"train.batch": _BATCH.value})
    longest = _LONGEST.value
    captions = Captions(mean=min(_TOKENS.value, longest), longest=longest)
    if _SEARCH.value:
        best = estimate.largest_batch(config, where, captions, lambda s: print(s, file=sys.stderr))
        if not best:
            raise UserError(f"--topology: not even the smallest batch fits on {where.name}")
        config = config.replace({"train.batch": best})
    planned = estimate.assemble(config, where)
    step = estimate.training(config, where, captions, planned)
    # Whoever has to write another config need not wait for more.
    encoding = estimate.extraction(config, where, captions, planned) if step.fits else {}
    made = report.record(config, where, captions, step, encoding, _PAIRS.value)
    print(json.dumps(made) if _JSON.value else report.text(made))
    for what, cost in {"the training step": step, **encoding}.items():
        if not cost.fits:
            raise UserError(
                f"{what} does not fit on {where.name}: {cost.reason}; write {_remedy(config, what)}"
            )


def _remedy(config: Config, what: str) -> str:
    if what in ("images", "captions"):
        return "a smaller eval.batch"
    if config.image.tune == config.text.tune == "frozen":
        return "a smaller train.batch or text.head.width, or take more chips"
    return "a smaller train.batch, or set train.micro_batch or train.remat"


if __name__ == "__main__":
    command.run(main)
