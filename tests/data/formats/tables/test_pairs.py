"""Tables as pairs: one data set in many layouts, and what was once taken wrongly."""

import io
import json

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ape_jax.data import open_labelled, open_pairs
from ape_jax.data.options import Reading
from ape_jax.errors import UserError

CAPTIONS = {
    "a.png": ("a red circle", 'a "circle" in red'),
    "b c.png": ("ein blauer Stern, schön",),
    "sub/d.png": ("one\nline more", "[sic] a green cross", "x"),
}
FRAME = pd.DataFrame(
    [{"image": image, "caption": text} for image, texts in CAPTIONS.items() for text in texts]
)


def png(seed):
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for seed, name in enumerate(CAPTIONS):
        (tmp_path / name).write_bytes(png(seed))
    return tmp_path


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr("ape_jax.parallel.hosts.say", lines.append)
    return lines


def _embedded(folder):
    return FRAME.assign(image=[(folder / name).read_bytes() for name in FRAME.image])


def _structs(folder):
    cells = [{"bytes": (folder / n).read_bytes(), "path": n} for n in FRAME.image]
    return FRAME.assign(image=cells)


def _one_row_an_image():
    return [{"file_name": name, "Captions": list(texts)} for name, texts in CAPTIONS.items()]


def _saved(folder):
    data = datasets.Dataset.from_pandas(_structs(folder))
    data.save_to_disk(folder / "saved", num_shards=2)
    return "saved"


def _arrow(folder):
    table = pa.Table.from_pandas(_embedded(folder))
    with pa.ipc.new_file(folder / "p.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=4)


LAYOUTS = {
    "p.csv": lambda d: FRAME.to_csv(d / "p.csv", index=False),
    "index.csv": lambda d: FRAME.to_csv(d / "index.csv"),
    "excel.csv": lambda d: FRAME.to_csv(
        d / "excel.csv", sep=";", encoding="utf-8-sig", index=False
    ),
    "utf16.csv": lambda d: FRAME.to_csv(d / "utf16.csv", sep="\t", encoding="utf-16", index=False),
    "bare.csv": lambda d: FRAME.to_csv(d / "bare.csv", header=False, index=False),
    "p.tsv": lambda d: FRAME.to_csv(d / "p.tsv", sep="\t", index=False),
    "p.csv.gz": lambda d: FRAME.to_csv(d / "p.csv.gz", index=False),
    "ids.csv": lambda d: FRAME.assign(id=range(6)).to_csv(d / "ids.csv", index=False),
    "p.jsonl": lambda d: FRAME.to_json(d / "p.jsonl", orient="records", lines=True),
    "columns.json": lambda d: FRAME.to_json(d / "columns.json"),
    "records.json": lambda d: FRAME.to_json(d / "records.json", orient="records", indent=2),
    "list.json": lambda d: (d / "list.json").write_text(json.dumps({"data": _one_row_an_image()})),
    "map.json": lambda d: (d / "map.json").write_text(json.dumps(CAPTIONS)),
    "cells.csv": lambda d: pd.DataFrame(_one_row_an_image()).to_csv(d / "cells.csv", index=False),
    "p.parquet": lambda d: FRAME.to_parquet(d / "p.parquet"),
    "bytes.parquet": lambda d: _embedded(d).to_parquet(d / "bytes.parquet", row_group_size=2),
    "structs.parquet": lambda d: _structs(d).to_parquet(d / "structs.parquet"),
    "p.feather": lambda d: pyarrow.feather.write_feather(_embedded(d), d / "p.feather"),
    "p.arrow": _arrow,
    "saved": _saved,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_one_data_set_in_every_layout(name, folder, said):
    LAYOUTS[name](folder)
    pairs = open_pairs(folder / name)
    assert [pair.captions for pair in pairs] == list(CAPTIONS.values())
    images = [png(seed) for seed in range(3)]
    found = (pair.image.content for pair in pairs)
    assert [x if isinstance(x, bytes) else open(x, "rb").read() for x in found] == images


def test_splits_of_a_saved_folder(folder, said):
    data = datasets.Dataset.from_pandas(_structs(folder))
    datasets.DatasetDict(train=data, test=data.select([0])).save_to_disk(folder / "d")
    assert len(open_pairs(f"{folder}/d:train")) == 3
    assert open_pairs(f"{folder}/d:test")[0].captions == ("a red circle",)
    open_pairs(folder / "d")
    assert any("'train', 'test'" in line for line in said)


def test_a_saved_folder_that_changes_is_read_again(folder, said, monkeypatch):
    monkeypatch.setattr("ape_jax.data.table.sheet._IN_MEMORY", 0)
    data = datasets.Dataset.from_pandas(_structs(folder))
    datasets.DatasetDict(train=data).save_to_disk(folder / "d")
    assert len(open_pairs(folder / "d")) == 3
    datasets.DatasetDict(train=data.select([0])).save_to_disk(folder / "d")
    assert len(open_pairs(folder / "d")) == 1


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl", "p.parquet"])
def test_an_id_a_caption_splits_no_image(name, folder, said):
    rows = FRAME.assign(id=range(10, 16))
    write = {
        "p.csv": lambda p: rows.to_csv(p, index=False),
        "p.jsonl": lambda p: rows.to_json(p, orient="records", lines=True),
        "p.parquet": rows.to_parquet,
    }
    write[name](folder / name)
    assert [len(pair.captions) for pair in open_pairs(folder / name)] == [2, 1, 3]
    assert any("id" in line for line in said)


@pytest.mark.parametrize(
    "cell", ["['a circle', \"a cat's\"]", '["a circle", "a cat\'s"]', "('a circle', 'a cat\\'s')"]
)
def test_a_list_in_a_cell(cell, folder, said):
    pd.DataFrame({"image": ["a.png"], "captions": [cell]}).to_csv(folder / "p.csv", index=False)
    assert open_pairs(folder / "p.csv")[0].captions == ("a circle", "a cat's")
    assert any("list" in line for line in said)


def test_quotes_in_tsv_swallow_nothing(folder, said):
    text = 'image\tcaption\na.png\t"red is all\nb c.png\tthe blue\nsub/d.png\tthe green"\n'
    (folder / "p.tsv").write_text(text)
    captions = [pair.captions for pair in open_pairs(folder / "p.tsv")]
    assert captions == [('"red is all',), ("the blue",), ('the green"',)]


def test_classes_that_hugging_face_names(folder, said):
    features = datasets.Features(
        {"image": datasets.Value("string"), "label": datasets.ClassLabel(names=["cat", "hot_dog"])}
    )
    data = datasets.Dataset.from_dict({"image": ["a.png", "b c.png"], "label": [1, 0]}, features)
    data.to_parquet(folder / "p.parquet")
    found = open_labelled(folder / "p.parquet")
    assert [found.classnames[item.label] for item in found] == ["hot dog", "cat"]


def test_damaged_rows_are_left_out_and_counted(folder, said):
    text = FRAME.to_csv(index=False) + 'a.png,"open\na.png,x,y\na.png,last\n'
    (folder / "p.csv").write_text(text)
    with pytest.raises(UserError, match=r"p\.csv:9: "):
        open_pairs(folder / "p.csv")
    pairs = open_pairs(folder / "p.csv", reading=Reading(on_error="skip", max_skipped=0.5))
    assert pairs[0].captions == (*CAPTIONS["a.png"], "last")
    assert pairs.problems.rows == 7 + 2


def test_parts_of_what_has_none(folder):
    FRAME.to_csv(folder / "p.csv", index=False)
    with pytest.raises(UserError, match="has no part 'train'"):
        open_pairs(f"{folder}/p.csv:train")


def test_memory_of_a_large_row_group(tmp_path):
    table = pa.table({"image": [bytes(2**16)] * 64, "caption": ["x"] * 64})
    pq.write_table(table, tmp_path / "p.parquet", use_dictionary=False)
    assert len(open_pairs(tmp_path / "p.parquet")) == 1
