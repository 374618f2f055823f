"""Tables in the cache folder."""

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


def test_a_damaged_table_is_made_anew(folder, monkeypatch, write, made):
    monkeypatch.setattr(sheet, "_IN_MEMORY", 0)
    path = write(folder / "p.jsonl", [("a.png", "x")])
    table = open_pairs(path).table.folder / "table.arrow"
    table.write_bytes(table.read_bytes()[:-10])
    assert made(path) == [("a.png", ("x",))]
