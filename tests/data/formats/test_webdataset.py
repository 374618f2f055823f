"""WebDataset tars as they are published and as they come out of tools."""

import gzip
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from ape_jax.data import open_pairs
from ape_jax.data.formats.webdataset import read_tar
from ape_jax.data.options import Reading
from ape_jax.data.rows import Ask, Broken, Row


def picture(color: int = 0, form: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), color, np.uint8)).save(out, form)
    return out.getvalue()


def write_tar(path, members, mode="w", **options):
    """Writes (name, content) or (name, TarInfo) in order; a name may be there twice."""
    with tarfile.open(path, mode, **options) as tar:
        for name, data in members:
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name = name
            if isinstance(data, bytes):
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)
    return path


class Said(list):
    def __call__(self, line: str) -> None:
        if line not in self:
            self.append(line)


def read(path, **options) -> tuple[list[Row], list[Broken], Said]:
    said = Said()
    found = list(read_tar(str(path), Ask(key="data.pairs", say=said, **options)).rows)
    rows = [row for row in found if isinstance(row, Row)]
    return rows, [row for row in found if isinstance(row, Broken)], said


def captions(path, **options) -> list:
    rows, broken, _ = read(path, **options)
    assert not broken
    return [row.fields["captions"] for row in rows]


def image_of(row: Row) -> bytes:
    path, offset, size = row.fields["image"]
    with open(path, "rb") as f:
        f.seek(offset)
        return f.read(size)


def webdataset_samples(path) -> list[dict]:
    """What the WebDataset library makes of a shard, by its published rules."""
    import re

    samples, current = [], None
    with tarfile.open(path, mode="r|*") as tar:
        for info in tar:
            if not info.isreg() or re.match(r"__[^/]*__($|/)", info.name):
                continue
            match = re.match(r"^((?:.*/|)[^.]+)[.]([^/]*)$", info.name)
            if not match:
                continue
            key, ending = match.group(1), match.group(2).lower()
            if current is None or current["__key__"] != key:
                current = {"__key__": key}
                samples.append(current)
            current[ending] = tar.extractfile(info).read()
    return samples


def test_records_are_those_of_webdataset(tmp_path):
    names = ["./a", "train/b", "train/c d", "x.y/e", "ä" * 120, "n" * 300]
    members = [("__meta__/x.json", b"{}")]
    for i, name in enumerate(names):
        members += [(f"{name}.PNG", picture(i)), (f"{name}.txt", b"one\n\ntwo \r\nthree")]
    path = write_tar(tmp_path / "a.tar", members, format=tarfile.PAX_FORMAT)
    rows, broken, _ = read(path)
    samples = webdataset_samples(path)
    keys = [s["__key__"].removeprefix("./") for s in samples]
    assert not broken and [row.suffix for row in rows] == [f"/{key}" for key in keys]
    for row, sample in zip(rows, samples, strict=True):
        assert image_of(row) == sample["png"]
        # clip_benchmark: .map_tuple(transform, str.splitlines)
        lines = [line.strip() for line in str.splitlines(sample["txt"].decode())]
        assert row.fields["captions"] == [line for line in lines if line]


def test_lines_of_a_text_are_captions_and_that_is_said_once(tmp_path):
    members = [
        (f"{i}.{e}", c) for i in range(3) for e, c in [("png", picture(i)), ("txt", b"a\nb")]
    ]
    _, _, said = read(write_tar(tmp_path / "a.tar", members))
    assert said == ["tars: each line of a text is a caption of its own"]


def test_members_in_any_order_make_the_same_records(tmp_path):
    members = [
        (f"{i}.{e}", c) for i in range(5) for e, c in [("jpg", picture(i)), ("txt", b"%d" % i)]
    ]
    expected, _, _ = read(write_tar(tmp_path / "a.tar", members))
    for seed in range(3):
        mixed = [members[i] for i in np.random.default_rng(seed).permutation(len(members))]
        rows, broken, _ = read(write_tar(tmp_path / "b.tar", mixed))
        assert not broken
        found = {row.suffix: (row.fields["captions"], image_of(row)) for row in rows}
        assert found == {r.suffix: (r.fields["captions"], image_of(r)) for r in expected}


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"1.txt": "b", "0.txt": "a", "10.txt": "c"}, ["a", "b", "c"]),
        ({"txt": "first", "0.txt": "second"}, ["first", "second"]),
        ({"caption.txt": "a"}, ["a"]),
        ({"caption": "a"}, ["a"]),
        ({"json": '{"caption": "a", "width": 3}'}, "a"),
        ({"json": '["a", "b"]'}, ["a", "b"]),
        ({"json": '{"TEXT": "a", "url": "http://x"}'}, "a"),
        ({"txt": "\ufeffa"}, ["a"]),
        ({"txt": ""}, ""),
        ({"txt": "a", "json": '{"caption": "a", "id": 7}'}, ["a"]),
    ],
)  # fmt: skip
def test_places_of_captions(tmp_path, texts, expected):
    members = [(f"k.{ending}", text.encode()) for ending, text in texts.items()]
    path = write_tar(tmp_path / "a.tar", [*members, ("k.png", picture())])
    rows, broken, said = read(path)
    assert not broken and not said
    assert rows[0].fields["captions"] == expected


def test_captions_that_are_not_read_are_named_and_can_be_chosen(tmp_path):
    inside = json.dumps({"captions": ["other"], "caption": "a", "caption_long": "a long one"})
    members = [("k.png", picture()), ("k.txt", b"a"), ("k.json", inside.encode())]
    path = write_tar(tmp_path / "a.tar", members)
    rows, _, said = read(path)
    assert rows[0].fields["captions"] == ["a"]
    assert len(said) == 1 and "not read: 'captions', 'caption_long' (data.columns=" in said[0]
    found = read_tar(str(path), Ask(key="k", columns={"captions": ("caption_long", "txt")}))
    fields = next(iter(found.rows)).fields
    assert not found.named and fields["caption_long"] == "a long one" and fields["txt"] == ["a"]


@pytest.mark.parametrize(
    "ending", ["JPG", "jfif", "jpe", "b.jpg", "jpeg", "Png", "webp", "img", ""]
)
def test_images_by_ending_and_by_content(tmp_path, ending):
    name = f"k.{ending}" if ending else "k"
    path = write_tar(tmp_path / "a.tar", [("k.txt", b"a"), (name, picture(3, "JPEG"))])
    rows, broken, _ = read(path)
    assert not broken and image_of(rows[0]) == picture(3, "JPEG")


def test_keys_with_dots_are_split_where_they_hold_several_images_and_that_is_said(tmp_path):
    members = [
        (f"coco.val.{i}.{e}", c)
        for i in range(3)
        for e, c in [("jpg", picture(i)), ("txt", b"number %d" % i)]
    ]
    path = write_tar(tmp_path / "a.tar", members)
    rows, broken, said = read(path)
    assert not broken and [r.fields["captions"] for r in rows] == [
        [f"number {i}"] for i in range(3)
    ]
    assert [row.suffix for row in rows] == [f"/coco.val.{i}" for i in range(3)]
    assert len(said) == 1 and "'coco'" in said[0]


def test_one_image_with_a_dotted_ending_stays_one_record(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("a.b.jpg", picture()), ("a.b.txt", b"x")])
    assert captions(path) == [["x"]]


def test_files_of_macos_and_of_other_kinds_are_left_out_and_named(tmp_path):
    members = [
        ("./._a.jpg", b"\0\5\x16\7"), ("./a.jpg", picture()), ("./._a.txt", b"\0\5\x16\7"),
        ("./a.txt", b"x"), ("__MACOSX/._a.jpg", b"\0"), (".DS_Store", b"\0"), (".hidden", b"\0"),
        ("./a.npy", b"array"), ("./a.seg.png", picture(9)), ("__info__.json", b"{}"),
    ]  # fmt: skip
    rows, broken, said = read(write_tar(tmp_path / "a.tar", members))
    assert not broken and [row.fields["captions"] for row in rows] == [["x"]]
    words = " ".join(said)
    assert all(kind in words for kind in ("files of macOS", "hidden files", ".npy", ".seg.png"))


def test_folders_links_and_sparse_members(tmp_path):
    folder, link = tarfile.TarInfo("d"), tarfile.TarInfo("l")
    folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "d/0.jpg"
    members = [
        ("d", folder), ("d/0.jpg", picture()), ("d/0.txt", b"x"), ("1.jpg", link), ("1.txt", b"y"),
    ]  # fmt: skip
    rows, broken, _ = read(write_tar(tmp_path / "a.tar", members))
    assert [row.fields["captions"] for row in rows] == [["x"]]
    assert [(b.at, b.kind) for b in broken] == [("1", "damaged row")] and "1.jpg" in broken[
        0
    ].reason


def test_what_img2dataset_writes(tmp_path):
    def meta(i, status):
        return json.dumps(
            {"caption": f"c{i}", "url": f"http://x/{i}", "key": f"{i:09}", "status": status,
             "error_message": None, "width": 8, "height": 8, "exif": "{}", "sha256": "00"}
        ).encode()  # fmt: skip

    members = [
        ("000000000.jpg", picture(0)),
        ("000000000.txt", b"c0"), ("000000000.json", meta(0, "success")),
        ("000000001.txt", b"c1"), ("000000001.json", meta(1, "failed_to_download")),
        ("000000002.jpg", picture(2)), ("000000002.json", meta(2, "success")),
    ]  # fmt: skip
    rows, broken, said = read(write_tar(tmp_path / "00000.tar", members))
    assert [row.fields["captions"] for row in rows] == [["c0"], "c2"] and not said
    assert [(b.at, b.kind) for b in broken] == [("000000001", "no image")]


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_tars_are_read_by_a_copy_that_is_made_once(tmp_path, monkeypatch, mode):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path / "cache"))
    members = [("0.png", picture()), ("0.txt", b"x")]
    path = write_tar(tmp_path / "a.tar", members, mode)  # Whatever the ending says.
    rows, _, said = read(path)
    assert image_of(rows[0]) == picture() and "compressed" in said[0]
    copies = list((tmp_path / "cache" / "tars").glob("*.tar"))
    rows, _, said = read(path)
    assert not said and [str(copy) for copy in copies] == [rows[0].fields["image"].path]


def test_a_plain_tar_named_gz_is_plain(tmp_path):
    path = write_tar(tmp_path / "a.tar.gz", [("0.png", picture()), ("0.txt", b"x")])
    assert captions(path) == [["x"]]


def test_a_class_is_the_label(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("0.png", picture()), ("0.cls", b"3\n")])
    assert read(path, wanted="label")[0][0].fields["label"] == "3"


def test_an_archive_of_gzip_members_is_not_mistaken(tmp_path, monkeypatch):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "a.tgz"
    plain = write_tar(tmp_path / "a.tar", [("0.png", picture()), ("0.txt", b"x")]).read_bytes()
    path.write_bytes(gzip.compress(plain[:700]) + gzip.compress(plain[700:]))
    assert captions(path) == [["x"]]


@pytest.mark.parametrize("before", ["./", "././", ".//./"])
def test_names_with_a_dot_for_this_folder_are_those_without(tmp_path, before):
    keys = ("a", "s/b", "s/../c", "..d/e")
    images = [(f"{key}.png", picture(i)) for i, key in enumerate(keys)]
    plain = [*images, *((f"{key}.txt", key.encode()) for key in keys)]
    dotted = [(before + name.replace("/", "/./"), content) for name, content in plain]
    mixed = [(before + name if name.endswith("txt") else name, x) for name, x in plain]
    for name, members in (("p", plain), ("d", dotted), ("m", mixed)):
        (tmp_path / name).mkdir()
        path = write_tar(tmp_path / name / "l.tar", members)
        found = open_pairs(path, reading=Reading(look=False))
        assert [pair.id for pair in found] == [f"l.tar/{key}" for key in keys]
