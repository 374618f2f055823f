"""Small files of pairs, and what is made of them."""

import json

import pytest

from ape_jax.data.pairs import Pairs
from ape_jax.data.specs import open_pairs


@pytest.fixture
def folder(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    return tmp_path


@pytest.fixture
def write():
    def writer(path, rows):
        named = (dict(zip(("image", "caption", "id"), row)) for row in rows)
        path.write_text("\n".join(map(json.dumps, named)))
        return path

    return writer


@pytest.fixture
def made():
    """Ids and captions of pairs, or of a source."""

    def read(of):
        pairs = of if isinstance(of, Pairs) else open_pairs(of)
        return [(p.id, p.captions) for p in pairs]

    return read
