"""What a tower is that another library runs, in words."""

from __future__ import annotations

from ape_jax.towers.outside import OWN
from ape_jax.towers.tower import Tower


def describe(tower: Tower) -> dict[str, str]:
    """What there is to say of a tower that another library runs, by name, for people.

    Example:
      tower, _ = towers.read("torch:hf:microsoft/swin-tiny-patch4-window7-224")
      describe(tower)["model"]          # 'transformers SwinModel'

    Args:
      tower: as `towers.read` gives it for a spec `torch:...`.

    Raises:
      ValueError: for a tower that JAX runs.
    """
    outside, config = tower.outside, tower.config
    if outside is None:
        raise ValueError(f"{tower.spec} is run by JAX")
    own = config.pooled_width()
    pooled = "by the library itself" if config.pooling == OWN else f"{config.pooling!r}"
    found = {
        "model": outside.title(),
        "run by": "torch, frozen: encoded once, outside of JAX",
        "kind": tower.kind,
        "parameters": f"{outside.parameters():,}",
        "width of a token": str(config.width),
        "pooling": f"{pooled}, {own} wide",
        "hidden states": str(outside.depth() + 1) if outside.depth() else "its output alone",
    }
    if tower.kind == "image":
        found["tokens before the patches"] = str(config.prefix_tokens)
    return {**found, **outside.settings(), **outside.versions(), "sha256": tower.digest}
