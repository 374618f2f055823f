"""Folders of Hugging Face's `save_to_disk`, and data sets by name, against `datasets` itself."""

import io
import json

import datasets
import pytest
from PIL import Image

from ape_jax.data.formats.tables.arrow import is_saved, read_saved
from ape_jax.data.formats.tables.hub import read_hub
from ape_jax.data.rows import Embedded
from ape_jax.errors import UserError


def png(value):
    out = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module", autouse=True)
def quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def data():
    features = datasets.Features(
        {"image": datasets.Image(decode=False), "caption": datasets.Value("string")}
    )
    images = [{"bytes": png(i), "path": None} for i in range(6)]
    return datasets.Dataset.from_dict(
        {"image": images, "caption": [f"caption {i}" for i in range(6)]}, features
    )


def content(cell):
    if isinstance(cell, dict):
        return cell["bytes"]
    with open(cell.path, "rb") as file:
        file.seek(cell.offset)
        return file.read(cell.size)


def same(found, data):
    assert [row["caption"] for row in found.fields] == data["caption"][:]
    assert [content(row["image"]) for row in found.fields] == [r["bytes"] for r in data["image"]]


def test_saved_in_several_files(data, tmp_path, read):
    data.save_to_disk(tmp_path / "d", num_shards=3)
    found = read(read_saved, tmp_path / "d")
    same(found, datasets.load_from_disk(tmp_path / "d"))
    assert all(isinstance(row["image"], Embedded) for row in found.fields)
    assert [row.suffix for row in found.rows] == [f":{i}" for i in range(6)]


def test_saved_rows_that_were_chosen(data, tmp_path, read):
    chosen = data.select([4, 1, 3])
    chosen.save_to_disk(tmp_path / "d")
    same(read(read_saved, tmp_path / "d"), chosen)


def test_splits(data, tmp_path, read):
    parts = datasets.DatasetDict(train=data, test=data.select([5, 0]))
    parts.save_to_disk(tmp_path / "d")
    assert is_saved(str(tmp_path / "d")) and not is_saved(str(tmp_path))
    same(read(read_saved, tmp_path / "d", part="test"), parts["test"])
    both = read(read_saved, tmp_path / "d")
    assert len(both.rows) == 8 and "all read" in both.said[0]
    assert (both.rows[7].at, both.rows[7].suffix) == ("test row 1", ":test/1")
    with pytest.raises(UserError, match="no split 'val'; write one of"):
        read(read_saved, tmp_path / "d", part="val")


def _state(folder, change):
    path = folder / "state.json"
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: _state(d, lambda s: s[:20]), "is not JSON .*save the folder again"),
        (lambda d: _state(d, lambda s: "[" * 10_000), "nested too deeply.*save the folder again"),
        (lambda d: _state(d, lambda s: "[1]"), "holds a list; expected an object"),
        (lambda d: _state(d, lambda s: s.replace("data-0", "../data-0")), "names no files"),
        (lambda d: _state(d, lambda s: s.replace("data-0", "other-0")), "missing"),
        (
            lambda d: _state(d, lambda s: json.dumps({**json.loads(s), "_indices_files": [1]})),
            "indices",
        ),
        (lambda d: next(d.glob("*.arrow")).write_bytes(b""), "not a readable Arrow file"),
        (lambda d: next(d.glob("*.arrow")).write_bytes(b"\xff" * 99), "not a readable Arrow file"),
    ],
)
def test_damaged_folders(change, said, data, tmp_path, read):
    data.save_to_disk(tmp_path / "d")
    change(tmp_path / "d")
    with pytest.raises(UserError, match=said) as error:
        read(read_saved, tmp_path / "d")
    assert "\n" not in str(error.value)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """`load_dataset` that builds a data set of a folder here in place of one on the hub."""
    (tmp_path / "f").mkdir()
    lines = ["file_name,caption"]
    for i in range(4):
        (tmp_path / "f" / f"{i}.png").write_bytes(png(i))
        lines.append(f"{i}.png,caption {i}")
    (tmp_path / "f" / "metadata.csv").write_text("\n".join(lines))
    load, asked = datasets.load_dataset, []

    def fake(name, config=None, split=None):
        asked.append((name, config, split))
        options = {"data_dir": tmp_path / "f", "cache_dir": tmp_path / "c"}
        return load("imagefolder", split=split, **options)

    monkeypatch.setattr(datasets, "load_dataset", fake)
    return asked


def test_data_set_by_name(hub, tmp_path, read):
    found = read(read_hub, "hf:org/name:train")
    assert [row["caption"] for row in found.fields] == [f"caption {i}" for i in range(4)]
    assert found.fields[3]["image"]["path"] == str(tmp_path / "f" / "3.png")
    assert len(read(read_hub, "hf:org/name/config:train[1:3]").rows) == 2
    whole = read(read_hub, "hf:name")
    assert [row.at for row in whole.rows][:1] == ["train row 0"]
    assert hub == [
        ("org/name", None, "train"), ("org/name", "config", "train[1:3]"), ("name", None, None)
    ]  # fmt: skip


def test_data_set_in_memory(data, monkeypatch, read):
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: data.select([3, 1]))
    same(read(read_hub, "hf:org/name:train"), data.select([3, 1]))


def test_what_the_hub_does_not_have(hub, read, monkeypatch):
    with pytest.raises(UserError, match="Unknown split"):
        read(read_hub, "hf:org/name:val")
    with pytest.raises(UserError, match="names no data set"):
        read(read_hub, "hf:")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(UserError, match=r'datasets; pip install "ape_jax\[datasets\]"'):
        read(read_hub, "hf:org/name:train")
