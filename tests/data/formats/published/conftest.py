"""A reader of one file, and what it says."""

import dataclasses
import json

import pytest
from PIL import Image

from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.rows import Ask, Broken, FileRows, Row


@dataclasses.dataclass
class Read:
    """What a reader made of a file."""

    file: FileRows
    rows: list[Row]
    broken: list[Broken]
    said: list[str]

    @property
    def pairs(self) -> list[tuple]:
        return [(row.fields["image"], row.fields["captions"]) for row in self.rows]

    @property
    def labels(self) -> list[tuple]:
        return [(row.fields["image"], row.fields["label"]) for row in self.rows]


@pytest.fixture
def read():
    """Reads a file by a format, which must know it at a look."""

    def reader(format: PairsFormat, path, **asked) -> Read:
        assert format.matches is not None and format.matches(str(path))
        said: list[str] = []
        file = format.read(str(path), Ask(key="data.pairs", say=said.append, **asked))
        rows, broken = [], []
        for row in file.rows:
            (rows if isinstance(row, Row) else broken).append(row)
        return Read(file, rows, broken, said)

    return reader


@pytest.fixture
def write(tmp_path):
    """Writes a file: text as it is, bytes as they are, anything else as JSON."""

    def writer(name: str, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, str | bytes):
            content = json.dumps(content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return writer


@pytest.fixture
def draw(tmp_path):
    """Draws small images of different colours."""

    def drawer(*names: str):
        for i, name in enumerate(names):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (40 * i % 256, 90, 200 - i)).save(tmp_path / name)

    return drawer
