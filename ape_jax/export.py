"""Takes a run elsewhere: `ape-jax export --workdir DIR --out OUT --format torch`."""

from __future__ import annotations

from absl import flags

from ape_jax.terminal import card_flags, command
from ape_jax.terminal.flags import DIM, flag_values

FLAGS = flag_values("workdir", "dim")
_OUT = flags.DEFINE_string(
    "out", "", "The directory to write; it must not exist.", flag_values=FLAGS
)
_FORMAT = flags.DEFINE_string(
    "format",
    "torch",
    "torch: a folder that transformers loads; dual_encoder: transformers' VisionTextDualEncoder; "
    "onnx; stablehlo: runs where JAX is; jax: a folder that ape_jax.load takes.",
    flag_values=FLAGS,
)
_INPUTS = flags.DEFINE_string(
    "inputs",
    "",
    "Pairs to check the result with; the run's data.eval or data.pairs where it is left out.",
    flag_values=FLAGS,
)
card_flags.add(FLAGS)


def main() -> None:
    """Writes OUT and verifies it with inputs of the run; an OUT that fails is removed."""
    source = command.workdir()  # Named before anything is opened.
    from ape_jax.commands import export

    card = card_flags.values(FLAGS)
    export.export(source, _OUT.value, _FORMAT.value, _INPUTS.value, card, DIM.value)


if __name__ == "__main__":
    command.run(main)
