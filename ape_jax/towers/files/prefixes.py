"""What stands before the names of all tensors of a tower: `module.`, `0.auto_model.`, `_orig_mod.`.

Whatever wrapped a model when it was saved leaves its name there. No list of such names is complete,
so a prefix is found by what follows it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ape_jax.errors import UserError

_PROBES = 5


def candidates(wanted: Collection[str], names: Collection[str]) -> list[str]:
    """Prefixes under which some of the wanted names stand, those of the most names first.

    >>> candidates(["a.weight", "b.weight"], ["module.a.weight", "module.b.weight", "x.a.weight"])
    ['module.', 'x.']

    Args:
      wanted: names without a prefix.
      names: names in a file.
    """
    probes = sorted(wanted, key=len, reverse=True)[:_PROBES]
    ends = tuple(probes)
    found = set()
    for name in names:
        if name.endswith(ends):
            for probe in probes:
                before = name.removesuffix(probe)
                if len(before) < len(name) and before.endswith((".", "/")):
                    found.add(before)
    return sorted(found, key=lambda prefix: (-hits(wanted, names, prefix), prefix))


def hits(wanted: Iterable[str], names: Collection[str], prefix: str) -> int:
    """The number of wanted names that stand under a prefix."""
    return sum(prefix + name in names for name in wanted)


def only_one(complete: list[str], label: str) -> None:
    """Raises UserError for a file in which the same tower stands under several prefixes."""
    if len(complete) > 1:
        listed = ", ".join(repr(prefix) for prefix in complete[:4])
        raise UserError(
            f"{label}: {len(complete)} towers of this config are in the file, under {listed}; keep "
            "the tensors of one of them"
        )
