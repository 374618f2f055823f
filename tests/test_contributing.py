"""CONTRIBUTING.md says what is there: the rooms in their order, their size, files that exist."""

import configparser
import itertools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def test_its_rooms_are_those_of_the_contract_in_their_order():
    contract = configparser.ConfigParser()
    contract.read(ROOT / ".importlinter")
    layers = contract["importlinter:contract:rooms"]["layers"].split("\n")
    rooms = [line.split(" | ") for line in reversed(layers) if line and " : " not in line]
    table = TEXT.split("## The rooms")[1].split("## How")[0]
    rows = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    listed = [re.findall(r"`(\w+)(?:/|\.py)", row) for row in rows if "main.py" not in row]
    assert sorted(itertools.chain(*listed)) == sorted(itertools.chain(*rooms))
    order = {room: place for place, names in enumerate(rooms) for room in names}
    levels = [max(order[name] for name in names) for names in listed]
    assert levels == sorted(levels)


NAMED = sorted(set(re.findall(r"`([\w./]+\.(?:py|sh|toml))`", TEXT)))


@pytest.mark.parametrize("path", [path for path in NAMED if "NAME" not in path])
def test_files_it_names_exist(path):
    assert (ROOT / path).exists() or (ROOT / "ape_jax" / path).exists()


FOLDERS = sorted({path.parent for path in (ROOT / "ape_jax").rglob("*.py")})


@pytest.mark.parametrize(
    "folder", [path for path in FOLDERS if path != ROOT / "ape_jax"], ids=lambda path: path.name
)
def test_a_folder_holds_at_most_fourteen_files(folder):
    assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= 14
