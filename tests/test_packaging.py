"""What is installed: the project's metadata, and the extras that messages name."""

import importlib.metadata
import pathlib
import re
import tomllib

import ape_jax
from ape_jax.exporters.formats import EXPORTS

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def test_every_extra_that_is_named_exists():
    """In messages, flags, the launchers and the documents."""
    places = [*(ROOT / "ape_jax").rglob("*.py"), *(ROOT / "launch").rglob("*.sh")]
    places += [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "pyproject.toml"]
    named = {}
    for path in places:
        text = path.read_text()
        lists = re.findall(r"ape_jax\[([\w,-]+)\]", text)
        calls = re.findall(r"\binstall\([\"']([\w-]+)[\"']\)", text)
        named |= {extra: path for extra in ",".join([*lists, *calls]).split(",") if extra}
    assert {"export", "judges", "plan-tpu", "app"} <= set(named)
    assert not {extra: path for extra, path in named.items() if extra not in EXTRAS}
    needed = {extra for name in EXPORTS for extra in EXPORTS[name].needs}
    assert needed and needed <= set(EXTRAS)


def test_no_requirement_is_capped():
    """A cap keeps a package out of environments that are newer than it; one needs a reason."""
    listed = [*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)]
    assert not [line for line in listed if re.search(r"<|==|~=", line.partition(";")[0])]


def test_the_version_is_in_one_place():
    assert "version" in PROJECT["dynamic"] and "version" not in PROJECT
    assert re.fullmatch(r"\d+\.\d+\.\d+", ape_jax.__version__)


def test_the_command_is_declared():
    (entry,) = PROJECT["scripts"].values()
    point = importlib.metadata.EntryPoint("ape-jax", entry, "console_scripts")
    assert callable(point.load())
