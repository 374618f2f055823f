"""Reading of one file by its format alone, with what is said."""

import pytest

from ape_jax.data.rows import Ask, Broken


class Read:
    """What a reader makes of a file: good rows, broken ones, and lines for the user."""

    def __init__(self, reader, path, **asked):
        self.said = []
        read = reader(str(path), Ask(key="data.pairs", say=self.said.append, **asked))
        self.columns = read.columns
        rows = list(read.rows)
        self.rows = [row for row in rows if not isinstance(row, Broken)]
        self.broken = [row for row in rows if isinstance(row, Broken)]

    @property
    def fields(self):
        return [dict(row.fields) for row in self.rows]


@pytest.fixture
def read():
    return Read
