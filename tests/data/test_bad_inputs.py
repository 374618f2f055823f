"""What users get wrong: each is one sentence that names the file and line, or the config key."""

import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ape_jax.data import open_labelled, open_pairs
from ape_jax.errors import UserError


def _png(shade: int = 0) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(out, "PNG")
    return out.getvalue()


PNG = _png()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(PNG)
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    return tmp_path


def jsonl(*lines) -> bytes:
    return "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines).encode()


def parquet(**columns) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def tar(*members: tuple[str, bytes], links: tuple[str, ...] = ()) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info)
    return out.getvalue()


GOOD = {"image": "a.png", "caption": "a"}
TWO = tar(("0.png", PNG), ("0.txt", b"zero"), ("1.png", PNG), ("1.txt", b"one"))
# The size field of the second record's header, rewritten to be no number at all.
BROKEN = TWO[:2048] + TWO[2048:3072].replace(b"1.png", b"\xff\xff\xff\xff\xff") + TWO[3072:]
# name: (file, its bytes, what the message must hold)
PAIRS = {
    "bad json": ("p.jsonl", jsonl(GOOD, "{image: a}"), ["p.jsonl:2", "JSON"]),
    "json cut": ("p.jsonl", b'{"image": "a.png", "cap', ["p.jsonl:1", "JSON"]),
    "json nested too deep": ("p.jsonl", b"[" * 100_000, ["p.jsonl:1", "JSON"]),
    "json not an object": ("p.jsonl", jsonl(GOOD, [1]), ["p.jsonl:2", "[1]"]),
    "no image": ("p.jsonl", jsonl({"im": "a.png", "caption": "x"}), ["p.jsonl:1", "im"]),
    "image a number": ("p.jsonl", jsonl({"image": 5, "caption": "x"}), ["p.jsonl:1", "5"]),
    "image empty": ("p.jsonl", jsonl({"image": "", "caption": "x"}), ["p.jsonl:1", "'image'"]),
    "no caption": ("p.jsonl", jsonl(GOOD, {"image": "b.png", "alt": 1}), ["p.jsonl:2", "alt"]),
    "caption a number": ("p.jsonl", jsonl({**GOOD, "caption": 3}), ["p.jsonl:1", "3"]),
    "caption null": ("p.jsonl", jsonl({**GOOD, "caption": None}), ["p.jsonl:1", "null"]),
    "caption blank": ("p.jsonl", jsonl({**GOOD, "caption": " \n"}), ["p.jsonl:1", "empty"]),
    "caption an object": ("p.jsonl", jsonl({**GOOD, "caption": {"a": 1}}), ["p.jsonl:1"]),
    "captions empty": ("p.jsonl", jsonl({"image": "a.png", "captions": []}), ["p.jsonl:1", "[]"]),
    "captions with a number": (
        "p.jsonl",
        jsonl({"image": "a.png", "captions": ["a", 2.5]}),
        ["p.jsonl:1", "2.5"],
    ),
    "captions with null": ("p.jsonl", jsonl({"image": "a.png", "captions": [None]}), ["None"]),
    "half a surrogate": ("p.jsonl", rb'{"image": "a.png", "caption": "\ud800"}', [":1", "Unicode"]),
    "id a list": ("p.jsonl", jsonl({**GOOD, "id": [1]}), ["p.jsonl:1", "'id'"]),
    "one id, two images": (
        "p.jsonl",
        jsonl({**GOOD, "id": "x"}, {**GOOD, "image": "b.png", "id": "x"}),
        ["p.jsonl:2", "p.jsonl:1", "'x'"],
    ),
    "not utf-8": ("p.jsonl", jsonl(GOOD) + b'\n{"image": "\xff\xfe"}', ["p.jsonl:2", "UTF-8"]),
    "line too long": ("p.jsonl", b" " * (11 * 2**20), ["p.jsonl:1", "longer"]),
    "empty file": ("p.jsonl", b"", ["data.pairs", "p.jsonl", "no records"]),
    "only blank lines": ("p.jsonl", b"\n\r\n  \n", ["data.pairs", "no records"]),
    "missing image": (
        "p.jsonl",
        jsonl(GOOD, {**GOOD, "image": "no.png"}),
        ["p.jsonl:2 (no.png)", "no such file"],
    ),
    "line end in a path": ("p.jsonl", jsonl({**GOOD, "image": "a\nb.png"}), [":1", "no such"]),
    "NUL in a path": ("p.jsonl", jsonl({**GOOD, "image": "a\0b.png"}), ["p.jsonl:1", "no such"]),
    "path too long": ("p.jsonl", jsonl({**GOOD, "image": "a" * 5000}), ["p.jsonl:1", "no such"]),
    "many missing images": (
        "p.jsonl",
        jsonl(GOOD, *({**GOOD, "image": f"no{i}.png"} for i in range(9))),
        ["p.jsonl:2 (no0.png)", "9 of 10 images", "no1.png", "no2.png"],
    ),
    "empty image": ("p.jsonl", jsonl({**GOOD, "image": "empty.png"}), ["empty.png", "0 bytes"]),
    "directory as image": ("p.jsonl", jsonl({**GOOD, "image": "folder.png"}), ["directory"]),
    "csv empty": ("p.csv", b"", ["p.csv:1", "none"]),
    "csv header only": ("p.csv", b"image,caption\n", ["data.pairs", "no records"]),
    "csv without caption": ("p.csv", b"image,says\na.png,x\n", ["p.csv:1", "'says'", "'caption'"]),
    "csv column twice": ("p.csv", b"image,caption,caption\na.png,x,y\n", ["p.csv:1", "twice"]),
    "csv short row": ("p.csv", b"image,caption\na.png,x\nb.png\n", ["p.csv:3", "1 cells"]),
    "csv long row": ("p.csv", b"image,caption\na.png,x,y\n", ["p.csv:2", "3 cells", "quote"]),
    "csv empty caption": ("p.csv", b"image,caption\na.png,\n", ["p.csv:2", "empty"]),
    "csv open quote": ("p.csv", b'image,caption\na.png,"x\n', ["p.csv:2", "quotes"]),
    "csv nul": ("p.csv", b"image,caption\na.png,\0x\0\n", []),
    "parquet is text": ("p.parquet", b"image,caption\n", ["p.parquet", "Parquet"]),
    "parquet cut": ("p.parquet", parquet(image=["a.png"], caption=["x"])[:-20], ["p.parquet"]),
    "parquet without image": ("p.parquet", parquet(caption=["x"]), ["p.parquet", "'image'"]),
    "parquet without caption": ("p.parquet", parquet(image=["a.png"]), ["p.parquet", "'caption'"]),
    "parquet image numbers": ("p.parquet", parquet(image=[1], caption=["x"]), ["int64"]),
    "parquet image struct": ("p.parquet", parquet(image=[{"x": 1}], caption=["x"]), ["struct"]),
    "parquet image null": (
        "p.parquet",
        parquet(image=["a.png", None], caption=["x", "y"]),
        ["p.parquet:row 1", "None"],
    ),
    "parquet caption numbers": ("p.parquet", parquet(image=["a.png"], caption=[1]), [":row 0"]),
    "parquet empty": (
        "p.parquet",
        parquet(image=pa.array([], pa.string()), caption=pa.array([], pa.string())),
        ["no records"],
    ),
    "tar cut in a member": ("p.tar", TWO[:700], ["p.tar", "damaged"]),
    "tar cut in a header": ("p.tar", TWO[:2100], ["p.tar", "damaged"]),
    "tar cut between records": ("p.tar", TWO[:2048], ["p.tar", "cut at byte 2048"]),
    "tar with a broken header": ("p.tar", BROKEN, ["p.tar", "damaged"]),
    "tar is text": ("p.tar", b"hello" * 1000, ["p.tar", "damaged"]),
    "tar without bytes": ("p.tar", b"", ["p.tar"]),
    "tar without members": ("p.tar", tar(), ["no records"]),
    "tar record without caption": ("p.tar", tar(("7.png", PNG)), ["p.tar:7", "caption"]),
    "tar record without image": ("p.tar", tar(("7.txt", b"x")), ["p.tar:7", "0 images"]),
    "tar record with two images": (
        "p.tar",
        tar(("7.png", PNG), ("7.jpg", PNG), ("7.txt", b"x")),
        ["p.tar:7", "2 images"],
    ),
    "tar member twice": ("p.tar", tar(("7.png", PNG), ("7.png", PNG)), ["p.tar", "twice"]),
    "tar record twice": (
        "p.tar",
        tar(*(x for i, n in enumerate("010") for x in ((f"{n}.png", _png(i)), (f"{n}.txt", b"x")))),
        ["p.tar:0", "twice"],
    ),
    "tar text not utf-8": ("p.tar", tar(("7.png", PNG), ("7.txt", b"\xff")), ["p.tar:7", "UTF-8"]),
    "tar bad json": ("p.tar", tar(("7.png", PNG), ("7.json", b"{")), ["p.tar:7.json", "JSON"]),
    "tar json list": ("p.tar", tar(("7.png", PNG), ("7.json", b"[]")), ["p.tar:7.json", "object"]),
    "tar empty image": ("p.tar", tar(("7.png", b""), ("7.txt", b"x")), ["7.png", "empty"]),
    "line end in a tar": ("p.tar", tar(("a\nb.png", PNG)), ["p.tar", "caption"]),
    "tar with a link": ("p.tar", tar(links=("7.png",)), ["p.tar", "7.png", "plain file"]),
}  # fmt: skip


def _check(message: str, parts: list[str]) -> None:
    assert "\n" not in message and not message.endswith(".")
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize("name", PAIRS)
def test_bad_pairs(name, folder):
    file, content, parts = PAIRS[name]
    (folder / file).write_bytes(content)
    if name == "csv nul":  # Python 3.11 refuses NUL, later versions read it; neither crashes.
        with pytest.raises(UserError):
            open_pairs(file)
            raise UserError("read")
        return
    with pytest.raises(UserError) as error:
        open_pairs(file)
    _check(str(error.value), parts)


SPECS = {
    "unknown suffix": ("pairs.txt", ["*.jsonl", "tfds:NAME"]),
    "no suffix": ("pairs", ["*.jsonl"]),
    "empty": ("", ["*.jsonl"]),
    "none": (None, ["None", "*.jsonl"]),
    "unknown prefix": ("hub:coco:train", ["*.jsonl"]),
    "missing file": ("no.jsonl", ["'no.jsonl'"]),
    "directory": ("folder.jsonl", ["'folder.jsonl'"]),
    "missing shards": ("s-{000..003}.tar", ["'s-000.tar'", "4 of 4"]),
    "bad range": ("s-{3..1}.tar", ["{3..1}"]),
    "tfds without split": ("tfds:coco_captions", ["SPLIT"]),
    "tfds unknown name": ("tfds:no_such_data_set:train", ["no_such_data_set", "array_record"]),
    "demo without split": ("demo:twemoji", ["SPLIT"]),
    "demo unknown style": ("demo:photos:train", ["photos", "twemoji"]),
    "demo unknown language": ("demo:twemoji/xx:train", ["xx", "en, "]),
    "demo unknown split": ("demo:twemoji:trian", ["trian", "train"]),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", SPECS)
def test_bad_specs_name_the_config_key(name, folder):
    (folder / "folder.jsonl").mkdir()
    spec, parts = SPECS[name]
    with pytest.raises(UserError) as error:
        open_pairs(spec, key="eval.retrieval.pairs")
    _check(str(error.value), ["eval.retrieval.pairs: ", *parts])


@pytest.mark.parametrize(
    ("features", "split", "parts"),
    [
        ("image text", "tset", ["tset", "train"]),
        ("image text", "train[5:x]", ["train[5:x]"]),
        ("image label", "train", ["'caption'", "'label'"]),
        ("text", "train", ["'image'", "'text'"]),
    ],
)
def test_bad_tfds(features, split, parts, folder, write_tfds):
    import tensorflow_datasets as tfds

    known = {
        "image": (tfds.features.Image(encoding_format="png"), str(folder / "a.png")),
        "text": (tfds.features.Text(), "x"),
        "label": (tfds.features.ClassLabel(num_classes=2), 0),
    }
    chosen = {name: known[name] for name in features.split()}
    example = {name: value for name, (_, value) in chosen.items()}
    write_tfds("bad", {name: feature for name, (feature, _) in chosen.items()}, [example])
    with pytest.raises(UserError) as error:
        open_pairs(f"tfds:bad:{split}")
    _check(str(error.value), ["data.pairs: ", *parts])


LABELS = {
    "unknown name": ([{"label": "horse"}], ["l.jsonl:1", "'horse'"]),
    "out of range": ([{"label": 1}, {"label": 2}], ["l.jsonl:2", "0 to 1"]),
    "negative": ([{"label": -1}], ["l.jsonl:1", "0 to 1"]),
    "huge": ([{"label": 10**30}], ["l.jsonl:1"]),
    "float": ([{"label": 1.5}], ["l.jsonl:1", "1.5"]),
    "true": ([{"label": True}], ["l.jsonl:1", "True"]),
    "null": ([{"label": None}], ["l.jsonl:1", "None"]),
    "empty": ([{"label": " "}], ["l.jsonl:1", "' '"]),
    "list": ([{"label": [1]}], ["l.jsonl:1", "[1]"]),
    "missing": ([{"label": 0}, {"class": 0}], ["l.jsonl:2", "no 'label'"]),
}


@pytest.mark.parametrize("name", LABELS)
def test_bad_labels(name, folder):
    rows, parts = LABELS[name]
    (folder / "l.jsonl").write_bytes(jsonl(*({"image": "a.png", **r} for r in rows)))
    with pytest.raises(UserError) as error:
        open_labelled("l.jsonl", ["cat", "dog"])
    _check(str(error.value), parts)


def test_numbers_without_classnames(folder):
    (folder / "l.jsonl").write_bytes(jsonl({"image": "a.png", "label": 3}))
    with pytest.raises(UserError, match=r"l\.jsonl:1: .*3"):
        open_labelled("l.jsonl")


def test_csv_without_label_column(folder):
    (folder / "l.csv").write_bytes(b"image,kind\na.png,cat\n")
    with pytest.raises(UserError, match=r"l\.csv:1: .*'kind'.*'label'"):
        open_labelled("l.csv")


def test_a_class_name_twice_names_the_key(folder):
    (folder / "l.jsonl").write_bytes(jsonl({"image": "a.png", "label": "cat"}))
    with pytest.raises(UserError, match=r"eval\.data: .*'cat' is there twice"):
        open_labelled("l.jsonl", ["cat", "cat"], key="eval.data")
