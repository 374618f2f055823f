"""Small files that notice any change."""

import pytest

from ape_jax.errors import UserError
from ape_jax.storage import sealed

VALUE = {"parts": {"layer": "-1", "name": "naïve"}, "shards": [{"size": 3}, {"size": 4}]}


def test_what_was_written_is_read(tmp_path):
    sealed.write(tmp_path / "a.json", VALUE)
    assert sealed.read(tmp_path / "a.json") == VALUE
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_every_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "a.json"
    sealed.write(path, VALUE)
    content = path.read_bytes()
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            with pytest.raises(UserError, match=r"a\.json is damaged"):
                sealed.read(path)


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b"", lambda b: b + b"\n"])
def test_truncated_and_lengthened_files_are_noticed(tmp_path, change):
    path = tmp_path / "a.json"
    sealed.write(path, VALUE)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match="is damaged"):
        sealed.read(path)
