"""Joining captions of one image, and ids: what counts as one image."""

import io
import json
import tarfile

import numpy as np
import pytest

from ape_jax.data.specs import open_pairs
from ape_jax.data.table import join, sheet, store
from ape_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    return tmp_path


def write(path, rows):
    path.write_text("\n".join(json.dumps(dict(zip(("image", "caption", "id"), r))) for r in rows))
    return path


def made(pairs):
    return [(p.id, p.captions) for p in pairs]


@pytest.mark.parametrize("seed", range(3))
def test_groups_are_those_of_a_dictionary(seed):
    keys = np.random.default_rng(seed).integers(0, 4, (50, 2)).astype(np.uint64)
    place: dict[tuple, int] = {}
    group = [place.setdefault(tuple(key), len(place)) for key in keys.tolist()]
    found = join.groups(keys)
    assert found.group.tolist() == group
    assert found.first.tolist() == [group.index(g) for g in range(len(place))]


def test_a_running_id_is_the_captions_and_never_splits_an_image(folder, capsys):
    rows = [("a.png", "x", 0), ("b.png", "y", 1), ("a.png", "z", 2)]
    assert made(open_pairs(write(folder / "p.jsonl", rows))) == [
        ("a.png", ("x", "z")),
        ("b.png", ("y",)),
    ]
    said = capsys.readouterr().err
    assert said.count("ids differ among the captions of one image (3 ids, 2 images)") == 1


def test_an_id_of_the_image_names_it(folder):
    rows = [("a.png", "x", None), ("b.png", "y", "B"), ("a.png", "z", "A"), ("c.png", "w", None)]
    found = made(open_pairs(write(folder / "p.jsonl", rows)))
    assert found == [("A", ("x", "z")), ("B", ("y",)), ("c.png", ("w",))]


def test_equal_ids_of_two_images_in_a_file_are_refused(folder):
    rows = [("a.png", "x", "1"), ("b.png", "y", "1")]
    with pytest.raises(UserError, match=r"p\.jsonl:2: the id '1' is also .* at .*p\.jsonl:1"):
        open_pairs(write(folder / "p.jsonl", rows))


def test_equal_ids_in_several_files_are_different_images(folder, capsys):
    write(folder / "p.jsonl", [("a.png", "x", "1")])
    write(folder / "q.jsonl", [("b.png", "y", "1"), ("c.png", "z", "2")])
    found = made(open_pairs(str(folder / "{p,q}.jsonl")))
    assert found == [("p.jsonl:1", ("x",)), ("q.jsonl:1", ("y",)), ("q.jsonl:2", ("z",))]
    assert "equal ids in different files" in capsys.readouterr().err


def test_an_image_in_two_files_is_one(folder):
    write(folder / "p.jsonl", [("a.png", "x")])
    write(folder / "q.jsonl", [("./a.png", "y"), ("a.png", "x")])
    assert made(open_pairs(str(folder / "{p,q}.jsonl"))) == [("a.png", ("x", "y"))]


def test_blocks_of_a_large_table_join_across_their_borders(folder, monkeypatch):
    """Small blocks stand for large sets."""
    rng = np.random.default_rng(0)
    rows = [("abc"[i] + ".png", f"caption {j}") for i, j in rng.integers(0, [3, 9], (200, 2))]
    path = write(folder / "p.jsonl", rows)
    whole = made(open_pairs(path))
    for module in ("join", "stored", "texts"):
        monkeypatch.setattr(f"ape_jax.data.table.{module}.BATCH_ROWS", 2)
    monkeypatch.setattr("ape_jax.data.table.builder._BLOCK", 7)
    monkeypatch.setattr("ape_jax.data.table.builder._FIRST", 5)
    monkeypatch.setattr(sheet, "_IN_MEMORY", 0)
    blocks = open_pairs(path)
    assert blocks.table.folder is not None and len(blocks.table.batches) == 2
    assert made(blocks) == whole == [(p.id, p.captions) for p in map(blocks.__getitem__, range(3))]


def test_a_table_is_found_again_until_its_file_changes(folder, monkeypatch):
    monkeypatch.setattr(sheet, "_IN_MEMORY", 0)
    path = write(folder / "p.jsonl", [("a.png", "x", 0), ("a.png", "y", 1)])
    first = open_pairs(path)
    monkeypatch.setattr(store, "Builder", None)  # Nothing is read again.
    assert made(open_pairs(path)) == made(first) and open_pairs(path).digest == first.digest
    monkeypatch.undo()
    write(path, [("b.png", "x")])
    assert made(open_pairs(path)) == [("b.png", ("x",))]


def test_a_damaged_table_is_made_anew(folder, monkeypatch):
    monkeypatch.setattr(sheet, "_IN_MEMORY", 0)
    path = write(folder / "p.jsonl", [("a.png", "x")])
    table = open_pairs(path).table.folder / "table.arrow"
    table.write_bytes(table.read_bytes()[:-10])
    assert made(open_pairs(path)) == [("a.png", ("x",))]


def test_a_picture_under_several_names_in_tars_is_one_image(tmp_path):
    """Images inside of files are told apart by their bytes, also where sizes and middles agree."""
    big = [bytes([i]) + b"x" * 20_000 + end for i, end in ((0, b"a"), (0, b"a"), (0, b"b"))]
    contents = {"0.tar": {"a": big[0], "b": b"other"}, "1.tar": {"a": big[2], "c": big[1]}}
    for name, images in contents.items():
        with tarfile.open(tmp_path / name, "w") as tar:
            for key, content in images.items():
                for ending, data in (("png", content), ("txt", f"{name} {key}".encode())):
                    info = tarfile.TarInfo(f"{key}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    assert made(open_pairs(str(tmp_path / "{0,1}.tar"))) == [
        ("0.tar/a", ("0.tar a", "1.tar c")),
        ("0.tar/b", ("0.tar b",)),
        ("1.tar/a", ("1.tar a",)),
    ]
