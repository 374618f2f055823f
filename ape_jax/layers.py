"""Which layers and poolings go together: `ape-jax layers --config C --workdir DIR [--plots]`."""

from __future__ import annotations

from absl import flags

from ape_jax.terminal import command
from ape_jax.terminal.flags import flag_values

FLAGS = flag_values("config", "workdir", "json")
_PLOTS = flags.DEFINE_bool(
    "plots", False, "Draw DIR/layers.png; needs ape_jax[plots].", flag_values=FLAGS
)


def main() -> None:
    """Compares the layers of both towers on the pairs, prints tables and the choice."""
    config, workdir = command.load_config(), command.workdir()
    from ape_jax.commands import layers

    layers.layers(config, workdir, plots=_PLOTS.value)


if __name__ == "__main__":
    command.run(main)
