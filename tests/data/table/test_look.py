"""Images that are looked at once, and what is wrong with them."""

import json

import pytest

from ape_jax.data.options import Reading
from ape_jax.data.specs import open_pairs
from ape_jax.data.table import look, sheet
from ape_jax.errors import UserError


@pytest.fixture
def pairs(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(b"x")
    rows = [{"image": f"{name}.png", "caption": name} for name in "abc"]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "p.jsonl"


def test_missing_and_empty_images_are_named_each_by_its_kind(pairs):
    (pairs.parent / "a.png").unlink()
    (pairs.parent / "c.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"p\.jsonl:1 .*no such file.*p\.jsonl:3 .*0 bytes"):
        open_pairs(pairs)
    found = open_pairs(pairs, reading=Reading(on_error="skip", max_skipped=0.9))
    assert [p.id for p in found] == ["b.png"]
    assert found.problems.counts() == {"missing image": 1, "empty image": 1}


def test_a_table_on_disk_is_looked_through_once_and_what_was_wrong_each_time(pairs, monkeypatch):
    monkeypatch.setattr(sheet, "_IN_MEMORY", 0)
    reading = Reading(on_error="skip", max_skipped=0.9)
    (pairs.parent / "a.png").unlink()
    assert len(open_pairs(pairs, reading=reading)) == 2
    monkeypatch.setattr(look, "_look", None)  # All of them are not looked at again.
    assert len(open_pairs(pairs, reading=reading)) == 2
    (pairs.parent / "a.png").write_bytes(b"x")
    assert len(open_pairs(pairs, reading=reading)) == 3


def test_paths_are_relative_to_the_file_else_to_the_working_directory_which_is_said(
    pairs, tmp_path_factory, monkeypatch, capsys
):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "p.jsonl"
    elsewhere.write_text(pairs.read_text())
    monkeypatch.chdir(pairs.parent)
    assert open_pairs(elsewhere)[0].image.content == str(pairs.parent / "a.png")
    assert f"taken from {pairs.parent}" in capsys.readouterr().err
    assert open_pairs(pairs)[0].image.content == str(pairs.parent / "a.png")
    assert "taken from" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "written",
    ["./a.png", "sub/../a.png", "file://{folder}/a.png", "{folder}/a.png", "sub\\..\\a.png"],
)
def test_ways_to_write_one_path_are_one_image(pairs, written):
    (pairs.parent / "sub").mkdir()
    image = written.format(folder=pairs.parent)
    row = json.dumps({"image": image, "caption": "again"})
    pairs.write_text(f"{pairs.read_text()}\n{row}")
    found = open_pairs(pairs)
    assert [p.id for p in found] == ["a.png", "b.png", "c.png"]
    assert found[0].captions == ("a", "again")


def test_a_replaced_image_of_a_large_source_is_noticed_when_it_is_read_again(pairs, monkeypatch):
    monkeypatch.setattr(sheet, "_IN_MEMORY", 0)
    monkeypatch.setattr("ape_jax.data.table.identity._CONTENT_IMAGES", 1)
    before = open_pairs(pairs).digest
    (pairs.parent / "a.png").write_bytes(b"longer")
    assert open_pairs(pairs).digest == before  # Documented in docs/limits.md.
    assert open_pairs(pairs, reading=Reading(again=True)).digest != before
    assert open_pairs(pairs).digest != before
