"""Tables in the cache folder."""

import pytest

from ape_jax.data.specs import open_pairs
from ape_jax.data.table import sheet, store


def test_a_table_is_found_again_until_its_file_changes(folder, monkeypatch, write, made):
    monkeypatch.setattr(sheet, "_IN_MEMORY", 0)
    path = write(folder / "p.jsonl", [("a.png", "x", 0), ("a.png", "y", 1)])
    first = open_pairs(path)
    monkeypatch.setattr(store, "Builder", None)  # Nothing is read again.
    assert made(path) == made(first) and open_pairs(path).digest == first.digest
    monkeypatch.undo()
    write(path, [("b.png", "x")])
    assert made(path) == [("b.png", ("x",))]


@pytest.mark.parametrize("name", ["table.arrow", "problems.arrow", "record.json"])
@pytest.mark.parametrize("kind", ["cut", "flip", "gone"])
def test_a_damaged_table_is_made_anew(folder, monkeypatch, write, made, name, kind, capsys):
    monkeypatch.setattr(sheet, "_IN_MEMORY", 0)
    path = write(folder / "p.jsonl", [("a.png", "x")])
    file = open_pairs(path).table.folder / name
    whole = file.read_bytes()
    if kind == "gone":
        file.unlink()
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        file.write_bytes(whole[:-10] if kind == "cut" else flipped)
    assert made(path) == [("a.png", ("x",))]
    assert file.read_bytes() == whole
    said = "is missing" if kind == "gone" else "is damaged"
    if name != "record.json":
        assert f"{name} {said}; the table of pairs is made anew" in capsys.readouterr().err


def test_a_flipped_caption_in_a_table_is_not_used(folder, monkeypatch, write, made):
    monkeypatch.setattr(sheet, "_IN_MEMORY", 0)
    path = write(folder / "p.jsonl", [("a.png", "a brown fox")])
    table = open_pairs(path).table.folder / "table.arrow"
    content = table.read_bytes()
    assert content.count(b"a brown fox") == 1
    table.write_bytes(content.replace(b"a brown fox", b"a crown fox"))
    assert made(path) == [("a.png", ("a brown fox",))]
