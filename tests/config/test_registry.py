"""Registries: what is imported when, what may be added, what a mistake is told."""

import dataclasses
import subprocess
import sys

import pytest

from ape_jax.config.registry import Registry


@dataclasses.dataclass(frozen=True)
class Toy:
    """A component."""

    name: str


PLAIN = Toy("plain")
MISNAMED = Toy("other")


def _registry() -> Registry[Toy]:
    return Registry("toy", {"plain": f"{__name__}:PLAIN", "lost": "no.such.module:TOY"})


def test_names_import_nothing_and_a_lookup_imports_the_file():
    toys = _registry()
    assert list(toys) == ["plain", "lost"] and "lost" in toys and len(toys) == 2
    assert toys["plain"] is PLAIN
    with pytest.raises(ModuleNotFoundError):
        toys["lost"]


def test_registered_components_come_last_and_change_the_revision():
    toys, mine = _registry(), Toy("mine")
    assert toys.register(mine) is mine and toys.register(mine) is mine
    assert list(toys) == ["plain", "lost", "mine"] and toys["mine"] is mine
    assert toys.revision == 1


def test_a_registered_component_can_be_removed_and_a_built_in_cannot():
    toys = _registry()
    toys.register(Toy("mine"))
    toys.unregister("mine")
    assert "mine" not in toys and toys.revision == 2
    for name in ("plain", "mine"):
        with pytest.raises(ValueError, match="not a toy that was registered"):
            toys.unregister(name)


def test_a_taken_name_is_refused():
    with pytest.raises(ValueError, match="there is a toy 'plain' already"):
        _registry().register(Toy("plain"))


def test_an_unknown_name_lists_those_that_there_are():
    with pytest.raises(KeyError, match="no toy 'plane'; there are 'plain', 'lost'"):
        _registry()["plane"]
    assert _registry().get("plane") is None


def test_a_line_under_another_name_than_the_component_s_is_a_mistake():
    with pytest.raises(ValueError, match="calls itself 'other' and is listed as 'toy'"):
        Registry("toy", {"toy": f"{__name__}:MISNAMED"})["toy"]


def test_the_config_is_imported_without_jax():
    code = "import ape_jax.config, sys; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
