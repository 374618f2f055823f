"""Files of every kind that `ape_jax.data` reads, and what can be wrong with each.

A sample is a sound file. `damages` makes damaged ones of it, the same ones every time: places that
hold no file, content that is cut, empty, flipped, of no encoding, nested without end, and values of
the wrong type.
"""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import io
import json
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def _png(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(out, "PNG")
    return out.getvalue()


PNG = [_png(i) for i in range(4)]
NAMES = [f"{i}.png" for i in range(4)]
ROWS = [{"image": name, "caption": f"caption of {name}"} for name in NAMES]


def table_of(text: Callable[[dict[str, str]], str], head: str = "") -> bytes:
    return "".join([head, *map(text, ROWS)]).encode()


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, **options)
    return out.getvalue()


def arrow(columns: dict[str, Any], stream: bool = False) -> bytes:
    out, table = io.BytesIO(), pa.table(columns)
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with new(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def tar(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return out.getvalue()


def npy(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, values)
    return out.getvalue()


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, method)
    return out.getvalue()


VECTORS = np.random.default_rng(0).normal(size=(4, 3)).astype("f4")
ARRAYS = {"image.npy": npy(VECTORS), "text.npy": npy(VECTORS)}
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}
BYTES = {"image": PNG, "caption": COLUMNS["caption"]}
LISTS = {"image": VECTORS.tolist(), "text": VECTORS.tolist()}
MEMBERS = {
    name: content
    for i in range(4)
    for name, content in (
        (f"{i}.png", PNG[i]),
        (f"{i}.json", json.dumps({"caption": f"caption of {i}.png", "width": 4}).encode()),
    )
}
COCO = {
    "images": [{"id": i, "file_name": name} for i, name in enumerate(NAMES)],
    "annotations": [
        {"id": 9 + i, "image_id": i, "caption": row["caption"]} for i, row in enumerate(ROWS)
    ],
}
KARPATHY = {
    "images": [
        {"filename": r["image"], "split": "train", "sentences": [{"raw": r["caption"]}]}
        for r in ROWS
    ],
    "dataset": "coco",
}
TURNS = [
    {
        "image": row["image"],
        "conversations": [
            {"from": "human", "value": "<image> what?"},
            {"from": "gpt", "value": row["caption"]},
        ],
    }
    for row in ROWS
]
TEXTCAPS = {
    "data": [
        {"image_id": str(i), "caption_str": row["caption"], "flickr_original_url": "x"}
        for i, row in enumerate(ROWS)
    ]
}
MEDICAT = [
    {"pdf_hash": str(i), "fig_uri": "a.png", "s2_caption": row["caption"], "s2orc_caption": None}
    for i, row in enumerate(ROWS)
]
STATE = {"_data_files": [{"filename": "data.arrow"}], "_split": None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """A sound file.

    Attributes:
      name: of the file.
      content: of it.
      kind: what is read: "pairs", "labels" or "vectors".
      spec: how it is named, where that is not its path: `{}` stands for the path.
      beside: other files that it needs.
      value: of a JSON document, whose values are replaced one by one.
      write: makes the content of such a value.
    """

    name: str
    content: bytes
    kind: str = "pairs"
    spec: str = "{}"
    beside: dict[str, bytes] = dataclasses.field(default_factory=dict)
    value: Any = None
    write: Callable[[Any], bytes] = lambda value: json.dumps(value).encode()

    def put(self, folder: Path, content: bytes | None = None) -> str:
        """Writes the file, and what it needs; returns the spec."""
        for name, data in {**self.beside, self.name: content}.items():
            if data is not None:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
        return self.spec.replace("{}", str(folder / self.name)).replace("{folder}", str(folder))


def document(name: str, value: Any, kind: str = "pairs") -> Sample:
    return Sample(name=name, content=json.dumps(value).encode(), value=value, kind=kind)


def json_lines(name: str, value: Any, kind: str = "pairs") -> Sample:
    return Sample(name=name, content=lines(value), value=value, write=lines, kind=kind)


CSV = table_of(lambda row: f"{row['image']},{row['caption']}\n", "image,caption\n")
SAMPLES = {
    "csv": Sample(name="p.csv", content=CSV),
    "csv.gz": Sample(name="p.csv.gz", content=gzip.compress(CSV, mtime=0)),
    "csv.xz": Sample(name="p.csv.xz", content=lzma.compress(CSV)),
    "csv.bz2": Sample(name="p.csv.bz2", content=bz2.compress(CSV)),
    "csv.zst": Sample(name="p.csv.zst", content=pa.compress(CSV, "zstd", asbytes=True)),
    "tsv": Sample(
        name="p.tsv", content=table_of(lambda r: f"{r['image']}\t{r['caption']}\n", "image\ttext\n")
    ),
    "jsonl": json_lines("p.jsonl", ROWS),
    "json": document("p.json", ROWS),
    "json of lists": document("p.json", {"year": 3, "data": ROWS}),
    "json of columns": document("p.json", COLUMNS),
    "parquet": Sample(name="p.parquet", content=parquet(COLUMNS)),
    "parquet of bytes": Sample(name="p.parquet", content=parquet(BYTES, compression="zstd")),
    "arrow": Sample(name="p.arrow", content=arrow(COLUMNS)),
    "arrow stream": Sample(name="p.arrow", content=arrow(COLUMNS, stream=True)),
    "tar": Sample(name="p.tar", content=tar(MEMBERS)),
    "tar.gz": Sample(name="p.tar.gz", content=gzip.compress(tar(MEMBERS), mtime=0)),
    "tar.xz": Sample(name="p.tar.xz", content=lzma.compress(tar(MEMBERS))),
    "tar.bz2": Sample(name="p.tar.bz2", content=bz2.compress(tar(MEMBERS))),
    "coco": document("captions_x.json", COCO),
    "karpathy": document("dataset_x.json", KARPATHY),
    "conversations": document("l.json", TURNS),
    "textcaps": document("TextCaps_x.json", TEXTCAPS),
    "medicat": json_lines("m.jsonl", MEDICAT),
    "flickr token": Sample(
        name="r.token", content=table_of(lambda row: f"{row['image']}#0\t{row['caption']}\n")
    ),
    "flickr bars": Sample(
        name="results.csv",
        content=table_of(
            lambda row: f"{row['image']}| 0| {row['caption']}\n",
            "image_name| comment_number| comment\n",
        ),
    ),
    "flickr commas": Sample(name="captions.txt", content=CSV),
    "imagenet list": Sample(
        name="val.txt",
        content=b"".join(b"%d.png %d\n" % (i, i) for i in range(4)),
        kind="labels",
    ),
    "labels": json_lines(
        "l.jsonl", [{"image": name, "label": i} for i, name in enumerate(NAMES)], "labels"
    ),
    "saved": Sample(
        name="set/state.json", content=json.dumps(STATE).encode(), value=STATE, spec="{folder}/set",
        beside={"set/data.arrow": arrow(COLUMNS, stream=True)},
    ),
    "rows of saved": Sample(
        name="set/data.arrow", content=arrow(COLUMNS, stream=True), spec="{folder}/set",
        beside={"set/state.json": json.dumps(STATE).encode()},
    ),
    "sidecar text": Sample(
        name="set/0.txt", content=b"caption of 0.png\n", spec="{folder}/set",
        beside={"set/0.png": PNG[0], "set/1.png": PNG[1], "set/1.txt": b"caption of 1.png"},
    ),
    "sidecar json": Sample(
        name="set/0.json", content=MEMBERS["0.json"], spec="{folder}/set",
        beside={"set/0.png": PNG[0], "set/1.png": PNG[1], "set/1.txt": b"caption of 1.png"},
        value=json.loads(MEMBERS["0.json"]),
    ),
    "npz": Sample(name="x.npz", content=archive(ARRAYS), kind="vectors", spec="features:{}"),
    "npz packed": Sample(
        name="x.npz", content=archive(ARRAYS, zipfile.ZIP_DEFLATED), kind="vectors",
        spec="features:{}",
    ),
    "npy": Sample(
        name="image.npy", content=ARRAYS["image.npy"], kind="vectors",
        spec="features:{},{folder}/text.npy", beside={"text.npy": ARRAYS["text.npy"]},
    ),
    "shards": Sample(
        name="set/image-0.npy", content=ARRAYS["image.npy"], kind="vectors",
        spec="features:{folder}/set", beside={"set/text-0.npy": ARRAYS["text.npy"]},
    ),
    "vectors parquet": Sample(
        name="v.parquet", content=parquet(LISTS), kind="vectors", spec="features:{}"
    ),
}  # fmt: skip
NO_FILES = ("a folder", "a pipe", "a link to itself", "a device", "nothing")
OF_THE_SECOND = "in the second record"
"""What the names of damages begin with that leave all other records as they are."""
SPREAD = 6  # Flips, and values of a document that are replaced, of each sample.


def damages(name: str) -> Iterator[tuple[str, bytes]]:
    """Damaged contents of a sample, each with what was done."""
    sample = SAMPLES[name]
    whole = sample.content
    # Of each sample its own, whatever others there are.
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    yield "empty", b""
    yield "zeros", bytes(len(whole))
    yield "one byte", whole[:1]
    yield "the first line", whole[: whole.find(b"\n") + 1] or whole[:8]
    for quarter in (1, 2, 3):
        yield f"cut at {quarter}/4", whole[: quarter * len(whole) // 4]
    yield "without its last byte", whole[:-1]
    yield "doubled", whole * 2
    yield "text behind it", whole + b"\nmore"
    for i in range(SPREAD):
        flipped = bytearray(whole)
        for at in rng.integers(0, len(whole), 1 + i):
            flipped[at] ^= 1 << int(rng.integers(0, 8))
        yield f"flipped {i}", bytes(flipped)
    yield "no text", whole.replace(b"caption of 1", b"\xff\xfe\x80 of 1")
    yield "zero bytes", whole.replace(b"caption of 1", b"\0\0 of 1")
    yield "brackets", b"[" * 100_000
    yield "braces", b'{"a":' * 100_000
    if sample.value is not None:
        yield "brackets inside", whole.replace(b'"caption of 1.png"', b"[" * 100_000)
        yield "half a character", whole.replace(b"caption of 1", rb"\ud800 of 1")
        yield "a name of half a character", whole.replace(b'"1.png"', rb'"\udc00.png"')
        yield "a name with NUL", whole.replace(b'"1.png"', rb'"\u0000.png"')
        yield "a name of 300 characters", whole.replace(b'"1.png"', b'"%s.png"' % (b"n" * 300))
        yield "a number of 5000 digits", whole.replace(b'"1.png"', b"9" * 5000)
        yield from _mistyped(sample, rng)


def flips(name: str, count: int) -> Iterator[bytes]:
    """A sample with one to four bits flipped."""
    rng = np.random.default_rng(1)
    for i in range(count):
        flipped = bytearray(SAMPLES[name].content)
        for at in rng.integers(0, len(flipped), 1 + i % 4):
            flipped[at] ^= 1 << int(rng.integers(0, 8))
        yield bytes(flipped)


def _mistyped(sample: Sample, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Each value of a document replaced by null, a number, a text, a list and an object."""
    places = list(_places(sample.value))
    for place in places:
        others: list[Any] = [None, 7, "text", [], {}, [1], {"a": []}, True, 1e308]
        for other in rng.permutation(len(others))[:SPREAD].tolist():
            value = _replaced(sample.value, place, others[other])
            numbers = [key for key in place if isinstance(key, int)]
            before = f"{OF_THE_SECOND} " if numbers[:1] == [1] else ""
            where = ".".join(map(str, place)) or "all"
            yield f"{before}{where} is {others[other]!r}", sample.write(value)


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if (
        isinstance(value, list)
    ) else ()  # fmt: skip
    for key, inner in items:
        yield from _places(inner, (*at, key))


def _replaced(value: Any, place: tuple[Any, ...], other: Any) -> Any:
    if not place:
        return other if isinstance(other, list) else [other]
    made = json.loads(json.dumps(value))
    inner = made
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = other
    return made


def _members(**arrays: np.ndarray) -> bytes:
    whole = {"image": VECTORS, "text": VECTORS, **arrays}
    return archive({f"{name}.npy": npy(values) for name, values in whole.items()})


def _patched(content: bytes, near: bytes, at: int, new: bytes) -> bytes:
    """Bytes behind each occurrence of some others replaced."""
    patched, start = bytearray(content), content.find(near)
    while start >= 0:
        patched[start + at : start + at + len(new)] = new
        start = content.find(near, start + 1)
    return bytes(patched)


def _objects() -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([{"a": 1}] * 4, object), allow_pickle=True)
    return archive({**ARRAYS, "owner.npy": out.getvalue()})


LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"
SIX = np.repeat(VECTORS, 2, axis=0)[:6]
ARCHIVES: dict[str, bytes] = {
    **{
        f"{array}: {what}": _members(text=SIX, **{array: np.asarray(values)})
        for array in ("owner", "text_offsets")
        for what, values in {
            "negative": [-1, 0, 1, 2, 3, 3],
            "floats": [0.0, 0, 1, 1, 2, 3],
            "two axes": [[0, 0, 1], [1, 2, 3]],
            "huge": [0, 0, 1, 1, 2, 2**62],
            "not a number": [0, 0, 1, 1, 2, np.nan],
            "truth values": [False, False, True, True, True, True],
            "text": list("001123"),
            "times": np.arange(6).astype("M8[s]"),
            "falling": [3, 2, 1, 1, 0, 0],
            "empty": np.zeros(0, int),
            "a scalar": 3,
            "unsigned and beyond": np.array([0, 0, 1, 1, 2, 2**64 - 1], np.uint64),
        }.items()
    },
    "objects": _objects(),
    "no array": archive({**ARRAYS, "owner.npy": b"hello"}),
    "a member of another name": archive({**ARRAYS, "../evil.npy": ARRAYS["text.npy"]}),
    "encrypted": _patched(_patched(archive(ARRAYS), LOCAL, 6, b"\1"), CENTRAL, 8, b"\1"),
    "a method that nobody knows": _patched(
        _patched(archive(ARRAYS), LOCAL, 8, b"c"), CENTRAL, 10, b"c"
    ),
    "LZMA": archive(ARRAYS, zipfile.ZIP_LZMA),
    "LZMA that is damaged": _patched(archive(ARRAYS, zipfile.ZIP_LZMA), LOCAL, 60, b"\xff" * 40),
    "bzip2 that is damaged": _patched(archive(ARRAYS, zipfile.ZIP_BZIP2), LOCAL, 60, bytes(40)),
    "deflate that is damaged": _patched(
        archive(ARRAYS, zipfile.ZIP_DEFLATED), LOCAL, 60, b"\xff" * 40
    ),
    "sizes that are lies": _patched(archive(ARRAYS), CENTRAL, 24, b"\xff\xff\xff\x7f"),
    "packed sizes that are lies": _patched(archive(ARRAYS), CENTRAL, 20, b"\1\0\0\0"),
    "both sizes": _patched(archive(ARRAYS), CENTRAL, 20, b"\xff\xff\xff\x7f" * 2),
    "an offset that leads out": _patched(archive(ARRAYS), CENTRAL, 42, b"\xff\xff\xff\x7f"),
    "a wrong sum": _patched(archive(ARRAYS, zipfile.ZIP_DEFLATED), CENTRAL, 16, bytes(4)),
    "a bomb": archive(
        {**ARRAYS, "image.npy": ARRAYS["image.npy"] + bytes(2**29)}, zipfile.ZIP_DEFLATED
    ),
}
"""Archives of features that are sound zip files, or nearly, and that nobody may take."""


def xz_with_a_huge_dictionary(content: bytes) -> bytes:
    """An xz file whose header asks for 1.5 GiB before anything is read."""
    made = bytearray(lzma.compress(content))
    end = 12 + 4 * (made[12] + 1) - 4
    assert made[14:16] == b"\x21\x01"  # The filter is LZMA2, and has one byte of properties.
    made[16] = 37
    made[end : end + 4] = zlib.crc32(made[12:end]).to_bytes(4, "little")
    return bytes(made)


def in_its_place(sample: Sample, kind: str, folder: Path) -> str:
    """Puts something that is no file where a sample's file should be; returns the spec."""
    spec = sample.put(folder)
    path = folder / sample.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a link to itself":
        path.symlink_to(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    return spec
