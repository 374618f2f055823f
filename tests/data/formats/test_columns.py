"""`data.columns` in every format: it is followed, or a line or an error names what is not there."""

import dataclasses
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ape_jax.data import open_labelled, open_pairs
from ape_jax.data.formats import registry
from ape_jax.data.options import Reading
from ape_jax.errors import UserError
from tests.plugins import toy_pairs


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "PNG")
    return out.getvalue()


def text(name: str, content: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        path = folder / name
        path.write_text(content)
        return str(path)

    return write


def document(name: str, value: Any) -> Callable[[Path], str]:
    return text(name, json.dumps(value))


ROW = {"image": "a.png", "caption": "plain", "long": "other"}


def arrow(folder: Path) -> str:
    table = pa.Table.from_pylist([ROW])
    with pa.ipc.new_file(str(folder / "p.arrow"), table.schema) as writer:
        writer.write_table(table)
    return str(folder / "p.arrow")


def parquet(folder: Path) -> str:
    pq.write_table(pa.Table.from_pylist([ROW]), folder / "p.parquet")
    return str(folder / "p.parquet")


def saved(folder: Path) -> str:
    datasets.Dataset.from_list([ROW]).save_to_disk(folder / "saved")
    return str(folder / "saved")


def tar(folder: Path) -> str:
    members = {"a.png": png(), "a.txt": b"plain", "a.json": json.dumps({"long": "other"}).encode()}
    with tarfile.open(folder / "p.tar", "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return str(folder / "p.tar")


def beside(folder: Path) -> str:
    inside = folder / "inside"
    inside.mkdir()
    (inside / "a.png").write_bytes(png())
    (inside / "a.txt").write_text("plain")
    (inside / "a.json").write_text(json.dumps({"long": "other"}))
    return str(inside)


def classes(folder: Path) -> str:
    (folder / "top" / "plain").mkdir(parents=True)
    (folder / "top" / "plain" / "a.png").write_bytes(png())
    return str(folder / "top")


def arrays(folder: Path) -> str:
    np.savez(folder / "x.npz", image=np.ones((2, 3), "f4"), text=np.ones((2, 3), "f4"))
    return f"features:{folder}/x.npz"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """A small source of a format.

    Attributes:
      write: (folder) -> spec.
      other: a column that holds "other", which is not what is read by itself; "" where the format
        has one column alone.
      labels: whether it is one of labels.
      refused: whether it is never read.
    """

    write: Callable[[Path], str]
    other: str = ""
    labels: bool = False
    refused: bool = False


COCO = {
    "images": [{"id": 9, "file_name": "a.png"}],
    "annotations": [{"id": 1, "image_id": 9, "caption": "plain", "long": "other"}],
}
KARPATHY = {
    "images": [
        {"filename": "a.png", "split": "x", "sentences": [{"raw": "plain"}], "long": "other"}
    ]
}
TURNS = [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "plain"}]
TEXTCAPS = {"image_id": "a", "caption_str": "plain", "flickr_original_url": "", "long": "other"}
MEDICAT = {"pdf_hash": "a", "fig_uri": "1.png", "s2_caption": "plain", "s2orc_caption": "other"}
SAMPLES = {
    "jsonl": Sample(write=text("p.jsonl", json.dumps(ROW) + "\n" + json.dumps(ROW)), other="long"),
    "json": Sample(write=document("p.json", [ROW]), other="long"),
    "csv": Sample(write=text("p.csv", "image,caption,long\na.png,plain,other\n"), other="long"),
    "spreadsheet": Sample(write=text("p.xlsx", "PK"), refused=True),
    "parquet": Sample(write=parquet, other="long"),
    "arrow": Sample(write=arrow, other="long"),
    "saved": Sample(write=saved, other="long"),
    "hf": Sample(write=lambda folder: "hf:made/up", other="long"),
    "webdataset": Sample(write=tar, other="long"),
    "folder": Sample(write=beside, other="long"),
    "tfds": Sample(write=lambda folder: "tfds:chosen:train", other="long"),
    "demo": Sample(write=lambda folder: "demo:twemoji:train[:2]"),
    "features": Sample(write=arrays),
    "coco": Sample(write=document("c.json", COCO), other="long"),
    "karpathy": Sample(write=document("k.json", KARPATHY), other="long"),
    "flickr_token": Sample(write=text("r.token", "a.png#0\tplain\n")),
    "flickr_bars": Sample(
        write=text("results.csv", "image_name| comment_number| comment\na.png| other| plain\n"),
        other="comment_number",
    ),
    "flickr_commas": Sample(
        write=text("captions.txt", "image_name,comment_number,comment\na.png,other,plain\n"),
        other="comment_number",
    ),
    "conversations": Sample(
        write=document("l.json", [{"image": "a.png", "conversations": TURNS, "long": "other"}]),
        other="long",
    ),
    "textcaps": Sample(write=document("t.json", {"data": [TEXTCAPS]}), other="long"),
    "dreamlip": Sample(
        write=text("d.csv", "Image Path,raw_caption,longSV_captions\na.png,plain,other\n"),
        other="longSV_captions",
    ),
    "roco": Sample(write=text("captions.txt", "ROCO_00002\tplain\n")),
    "roco_table": Sample(
        write=text("t.csv", "id,name,caption\nROCO_1,other,plain\nROCO_2,other,plain\n"),
        other="name",
    ),
    "medicat": Sample(write=text("m.jsonl", json.dumps(MEDICAT)), other="s2orc_caption"),
    "imagenet_list": Sample(write=text("val.txt", "a.jpeg 0\nb.jpeg 0\n"), labels=True),
    "imagenet_solution": Sample(
        write=text("s.csv", "ImageId,PredictionString\nother,n01440764 1 2 3 4\n"),
        other="ImageId",
        labels=True,
    ),
    "class_folders": Sample(write=classes, labels=True),
    "addresses": Sample(write=text("cc.tsv", "plain\thttps://x.org/a.jpg\n"), refused=True),
    "toy": Sample(write=text("p.toy", "a.png | plain\n")),  # A plug-in's, as others are.
}


@pytest.fixture(autouse=True)
def toy():
    toy_pairs.register()
    yield
    registry.FORMATS.unregister("toy")


@pytest.fixture
def source(tmp_path, monkeypatch, write_tfds):
    """The spec of a format's sample."""

    def make(name: str) -> str:
        if name == "tfds":
            import tensorflow_datasets as tfds

            (tmp_path / "a.png").write_bytes(png())
            feature = {"image": tfds.features.Image(encoding_format="png")}
            feature |= {key: tfds.features.Text() for key in ("caption", "long")}
            example = {**ROW, "image": str(tmp_path / "a.png")}
            write_tfds("chosen", feature, [example])
        if name == "hf":
            whole = datasets.Dataset.from_list([ROW])
            monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: whole)
        return SAMPLES[name].write(tmp_path)

    return make


def read(spec: str, labels: bool, **names: str) -> list[Any]:
    """Captions, or the names of labels."""
    reading = Reading(columns={k: (v,) for k, v in names.items()}, look=False)
    if labels:
        numbers = spec.endswith("val.txt")
        found = open_labelled(spec, ["plain"] if numbers else None, reading=reading)
        return [found.classnames[item.label] for item in found]
    pairs = open_pairs(spec, reading=reading)
    return [caption for pair in pairs for caption in pair.captions]


def test_every_format_has_a_sample():
    assert set(SAMPLES) == set(registry.FORMATS)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if sample.other])
def test_a_column_that_is_there_is_taken(name, source):
    sample = SAMPLES[name]
    spec = source(name)
    role = "label" if sample.labels else "captions"
    assert set(read(spec, sample.labels, **{role: sample.other})) == {"other"}
    if not sample.labels:
        assert set(read(spec, sample.labels)) == {"plain"}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("role", ["image", "texts"])
@pytest.mark.parametrize("name", SAMPLES)
def test_a_column_that_is_not_there_is_named(name, role, source, capsys):
    sample = SAMPLES[name]
    asked = {"texts": "label" if sample.labels else "captions"}.get(role, role)
    spec = source(name)
    try:
        read(spec, sample.labels, **{asked: "nowhere"})
    except UserError as error:
        assert sample.refused or "'nowhere'" in str(error)
    else:
        assert capsys.readouterr().err.count("'nowhere'") == 1
