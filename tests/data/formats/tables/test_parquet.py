"""Parquet with the types of columns that people have."""

import datetime
import decimal
import io

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ape_jax.data.formats.tables.arrow import read_arrow
from ape_jax.data.formats.tables.parquet import read_parquet
from ape_jax.data.rows import Embedded
from ape_jax.errors import UserError


def png(seed):
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


IMAGES = [png(i) for i in range(5)]
STRUCTS = [{"bytes": image, "path": f"{i}.png"} for i, image in enumerate(IMAGES)]
CAPTIONS = ["a", "zwei", "", "drei\n", "vier"]

KINDS = {
    "binary": pa.array(IMAGES),
    "large_binary": pa.array(IMAGES, pa.large_binary()),
    "binary_view": pa.array(IMAGES, pa.binary_view()),
    "dictionary": pa.array(IMAGES).dictionary_encode(),
    "struct": pa.array(STRUCTS),
    "list of bytes": pa.array([[image] for image in IMAGES]),
    "list of structs": pa.array([[struct] for struct in STRUCTS]),
}
TEXTS = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "dictionary": pa.dictionary(pa.int8(), pa.string()),
}


def content(cell):
    """The bytes of an image cell, as the table behind the readers takes them."""
    if isinstance(cell, list):
        (cell,) = cell
    if isinstance(cell, dict):
        cell = cell["bytes"]
    if isinstance(cell, Embedded):
        with open(cell.path, "rb") as file:
            file.seek(cell.offset)
            return file.read(cell.size)
    return cell


def write(path, table, kind):
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=2)
    elif kind == "stream":
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    else:
        options = pa.ipc.IpcWriteOptions(compression=None if kind == "file" else kind)
        with pa.ipc.new_file(path, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=2)
    return path


@pytest.mark.parametrize("kind", ["parquet", "file", "stream", "zstd", "lz4"])
@pytest.mark.parametrize("images", KINDS)
def test_images_of_every_type(images, kind, tmp_path, read):
    table = pa.table({"image": KINDS[images], "caption": CAPTIONS, "vector": [[0.5, 1.5]] * 5})
    path = write(tmp_path / "p", table, kind)
    found = read(read_parquet if kind == "parquet" else read_arrow, path)
    assert [content(row["image"]) for row in found.fields] == IMAGES
    assert [row["caption"] for row in found.fields] == CAPTIONS
    assert [(row.at, row.suffix) for row in found.rows] == [(f"row {i}", f":{i}") for i in range(5)]
    assert found.columns == ["image", "caption", "vector"]


@pytest.mark.parametrize("kind", ["file", "stream"])
@pytest.mark.parametrize("images", ["binary", "large_binary", "struct"])
def test_images_of_an_arrow_file_stay_in_it(images, kind, tmp_path, read):
    path = write(tmp_path / "p", pa.table({"image": KINDS[images], "caption": CAPTIONS}), kind)
    assert all(isinstance(row["image"], Embedded) for row in read(read_arrow, path).fields)


def test_struct_without_bytes_is_its_path(tmp_path, read):
    structs = pa.array([{"bytes": None, "path": "x.png"}, STRUCTS[0], None])
    table = pa.table({"image": structs, "caption": ["a", "b", "c"]})
    found = read(read_arrow, write(tmp_path / "p", table, "file"))
    assert found.fields[0]["image"] == "x.png" and found.fields[2]["image"] is None
    found = read(read_parquet, write(tmp_path / "q", table, "parquet"))
    assert found.fields[0]["image"] == {"bytes": None, "path": "x.png"}


def test_slices_and_nulls_in_an_arrow_file(tmp_path, read):
    images = pa.array([IMAGES[0], None, IMAGES[1], b"", IMAGES[2]])
    table = pa.table({"image": images, "caption": CAPTIONS}).slice(1, 4)
    found = read(read_arrow, write(tmp_path / "p", table, "file"))
    cells = [content(row["image"]) for row in found.fields]
    assert cells == [None, IMAGES[1], b"", IMAGES[2]]


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("file", ["parquet", "file"])
def test_texts_of_every_type(kind, file, tmp_path, read):
    texts = pa.array(CAPTIONS).cast(TEXTS[kind])
    table = pa.table(
        {"image": ["a.png"] * 5, "caption": texts, "id": pa.array(range(5), pa.int8())}
    )
    found = read(
        read_parquet if file == "parquet" else read_arrow, write(tmp_path / "p", table, file)
    )
    assert found.fields == [
        {"image": "a.png", "caption": caption, "id": i} for i, caption in enumerate(CAPTIONS)
    ]


def test_lists_of_captions(tmp_path, read):
    captions = [["a", "b"], [], None, ["c"], [None]]
    path = write(tmp_path / "p", pa.table({"image": ["x"] * 5, "captions": captions}), "parquet")
    assert [row["captions"] for row in read(read_parquet, path).fields] == captions


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime.date(2020, 1, 2), "2020-01-02"),
        (datetime.datetime(2020, 1, 2, 3, 4, 5), "2020-01-02 03:04:05.000000"),
        (decimal.Decimal("1.50"), "1.50"),
        (datetime.timedelta(seconds=1), 1000000),
        (np.float16(0.5), 0.5),
    ],
)
def test_ids_of_other_types(value, expected, tmp_path, read):
    table = pa.table({"image": ["a.png"], "caption": ["x"], "id": [value]})
    assert read(read_parquet, write(tmp_path / "p", table, "parquet")).fields[0]["id"] == expected


@pytest.mark.parametrize("file", ["parquet", "file"])
def test_text_that_is_not_utf8_is_one_row(file, tmp_path, read):
    bad = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"caf\xe9"]).buffers())
    path = write(tmp_path / "p", pa.table({"image": ["a", "b"], "caption": bad}), file)
    found = read(read_parquet if file == "parquet" else read_arrow, path)
    assert [row["caption"] for row in found.fields] == ["ok"]
    assert [(row.at, "UTF-8" in row.reason) for row in found.broken] == [("row 1", True)]


def test_images_of_numbers_are_refused(tmp_path, read):
    path = write(tmp_path / "p", pa.table({"image": [[1, 2]], "caption": ["x"]}), "parquet")
    with pytest.raises(UserError, match=r"'image' has the type list<.*write paths, bytes"):
        read(read_parquet, path)


def test_names_of_classes_that_hugging_face_writes(tmp_path, read):
    features = datasets.Features(
        {"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    data = datasets.Dataset.from_dict({"image": STRUCTS, "label": [0, 1, 0, 1, 0]}, features)
    data.to_parquet(tmp_path / "p.parquet")
    found = read(read_parquet, tmp_path / "p.parquet", wanted="label")
    assert found.fields[1]["label"] == 1 and found.fields[1]["label_names"] == ["cat", "dog"]
    assert [content(row["image"]) for row in found.fields] == IMAGES


def test_only_columns_that_are_wanted_are_decoded(tmp_path, read):
    path = write(
        tmp_path / "p", pa.table({"image": ["a"], "caption": ["x"], "big": ["y"]}), "parquet"
    )
    assert read(read_parquet, path).fields == [{"image": "a", "caption": "x"}]
