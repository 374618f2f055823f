"""What a run would need on TPUs or GPUs that are not here.

ape-jax plan --config C --topology v5e:16x16
"""

from __future__ import annotations

from absl import flags

from ape_jax.terminal import command
from ape_jax.terminal.flags import flag_values

FLAGS = flag_values("config", "json")
_TOPOLOGY = flags.DEFINE_string(
    "topology",
    "",
    "TPU slice or GPUs, as in v5e:4x4, v5p:2x2x2 or h100:4x8.",
    flag_values=FLAGS,
)
_BATCH = flags.DEFINE_integer(
    "batch", 0, "Global batch, in place of the config's.", 0, flag_values=FLAGS
)
_TOKENS = flags.DEFINE_float(
    "tokens", 13.0, "Mean tokens a caption; COCO's have 13.", 1.0, flag_values=FLAGS
)
_LONGEST = flags.DEFINE_integer(
    "longest", 64, "Tokens of the longest caption.", 1, flag_values=FLAGS
)
_PAIRS = flags.DEFINE_integer(
    "pairs", 0, "Pairs of the data set, for the time to encode it.", 0, flag_values=FLAGS
)
_SEARCH = flags.DEFINE_bool(
    "search", False, "Find the largest global batch that fits.", flag_values=FLAGS
)
_THOROUGH = flags.DEFINE_bool(
    "thorough",
    False,
    "Compile as for a run: memory to the byte, after minutes instead of seconds.",
    flag_values=FLAGS,
)


def main() -> None:
    """Compiles what the flags describe and prints what it costs."""
    from ape_jax.commands import plan

    plan.leave_this_machine()
    config = command.load_config()
    if _BATCH.value:
        config = config.replace({"train.batch": _BATCH.value})
    plan.plan(
        config,
        _TOPOLOGY.value,
        tokens=(_TOKENS.value, _LONGEST.value),
        pairs=_PAIRS.value,
        search=_SEARCH.value,
        thorough=_THOROUGH.value,
    )


if __name__ == "__main__":
    command.run(main)
