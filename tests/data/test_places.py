"""Specs of pairs: patterns, folders, several sources, mixtures, and the file that was meant."""

import gzip
import io
import json
import os
import shutil
import tarfile

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ape_jax.data import open_pairs
from ape_jax.errors import UserError
from ape_jax.images.decode import ImageError, load_image


def picture(color: int = 0) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), color, np.uint8)).save(out, "PNG")
    return out.getvalue()


def lines(path, *names, folder=None):
    """A JSONL file and its images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        image = (folder or path.parent) / f"{name}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(picture(sum(name.encode()) % 251))
    rows = [{"image": f"{name}.png", "caption": name} for name in names]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def shard(path, *names, first=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for color, name in enumerate(names, first):
            for ending, data in (("png", picture(color)), ("txt", name.encode())):
                info = tarfile.TarInfo(f"{name}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def table(path, *names):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [picture(sum(name.encode()) % 251) for name in names]
    pq.write_table(pa.table({"image": images, "caption": list(names)}), path)
    return path


def captions(spec) -> list[str]:
    return [text for pair in open_pairs(str(spec)) for text in pair.captions]


# Patterns and several sources.


def test_globs_are_sorted(tmp_path):
    for name in "cab":
        shard(tmp_path / f"s-{name}.tar", name, first=ord(name))
    (tmp_path / "._s-a.tar").write_bytes(b"of macOS")
    assert captions(tmp_path / "s-*.tar") == ["a", "b", "c"]
    assert captions(tmp_path / "s-[ab].tar") == ["a", "b"]
    assert captions(tmp_path / "s-{c,a}.tar") == ["c", "a"]


def test_a_file_with_the_name_of_a_pattern_is_that_file(tmp_path):
    assert captions(lines(tmp_path / "p[1]{a}*.jsonl", "a")) == ["a"]


def test_sources_of_several_kinds_follow_each_other(tmp_path):
    specs = [
        lines(tmp_path / "p.jsonl", "a"), shard(tmp_path / "q.tar", "b"),
        table(tmp_path / "r.parquet", "c"),
    ]  # fmt: skip
    assert captions("::".join(map(str, specs))) == ["a", "b", "c"]


def test_equal_names_in_different_folders_are_different_images(tmp_path):
    shard(tmp_path / "s1" / "0.tar", "a", "b")
    shard(tmp_path / "s2" / "0.tar", "a", "b", first=2)
    pairs = open_pairs(str(tmp_path / "{s1,s2}" / "0.tar"))
    assert [p.id for p in pairs] == ["s1/0.tar/a", "s1/0.tar/b", "s2/0.tar/a", "s2/0.tar/b"]


def test_weights_belong_to_the_images_of_a_source_and_stay_with_a_choice(tmp_path):
    first, second = lines(tmp_path / "a.jsonl", "a", "b"), lines(tmp_path / "b.jsonl", "c")
    pairs = open_pairs(f"{first}::{second}::weights=2,0.5")
    assert pairs.weights.tolist() == [2, 2, 0.5]
    assert pairs.take([2, 0]).weights.tolist() == [0.5, 2]
    assert open_pairs(f"{first}::{second}").weights is None
    assert open_pairs(f"{first}::{second}::weights=3,3").weights is None
    assert open_pairs(f"{first}::{second}").digest == pairs.digest


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("{root}/a.jsonl::features:x.npz", "cannot be one of several sources"),
        ("{root}/a.jsonl::part:rest:0.1:0:b.jsonl", "cannot be one of several sources"),
        ("{root}/a.jsonl::", "empty source"),
        ("{root}/a.jsonl::{root}/no.jsonl", "no file '{root}/no.jsonl'"),
        ("{root}/x-*.tar", "no file matches '{root}/x-"),
    ],
)
def test_sources_that_are_none(tmp_path, spec, words):
    lines(tmp_path / "a.jsonl", "a")
    with pytest.raises(UserError) as error:
        open_pairs(spec.format(root=tmp_path))
    assert str(error.value).startswith("data.pairs: ")
    assert words.format(root=tmp_path) in str(error.value)


def test_a_part_by_name_is_not_passed_over(tmp_path):
    path = shard(tmp_path / "a.tar", "a")
    with pytest.raises(UserError, match="tars have no parts by name; leave ':train' out"):
        open_pairs(f"{path}:train")


# Names as they are written.


def test_ways_to_write_a_path(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    lines(tmp_path / "my data" / "p 1.jsonl", "a")
    for spec in (
        "~/my data/p 1.jsonl", f"file://{tmp_path}/my%20data/p%201.jsonl", "my data/p 1.jsonl",
        f"file://{tmp_path}/my data/p 1.jsonl", f"file://localhost{tmp_path}/my data/p 1.jsonl",
    ):  # fmt: skip
        assert captions(spec) == ["a"], spec
    assert "taken" not in capsys.readouterr().err
    for spec in ("my%20data/p%201.jsonl", "my data\\p 1.jsonl"):
        assert captions(spec) == ["a"], spec
        assert "data.pairs: there is no" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "meant"),
    [("Pairs.JSONL", "pairs.jsonl"), ("pairs", "pairs.jsonl"), ("pairs.json", "pairs.jsonl"),
     ("pars.jsonl", "pairs.jsonl"), ("DATA/x.tar", "data")],
)  # fmt: skip
def test_the_file_that_was_meant_is_suggested(tmp_path, written, meant):
    lines(tmp_path / "pairs.jsonl", "a")
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match=r"no file .*; there is '") as error:
        open_pairs(str(tmp_path / written))
    assert f"there is '{tmp_path / meant}'" in str(error.value)


def test_the_image_that_was_meant_is_suggested(tmp_path):
    path = lines(tmp_path / "p.jsonl", "cat")
    path.write_text('{"image": "Cat.PNG", "caption": "a cat"}')
    with pytest.raises(UserError, match=r"no such file; there is '.*cat\.png'"):
        open_pairs(path)


def test_nothing_else_than_files_and_folders(tmp_path):
    os.mkfifo(tmp_path / "p.jsonl")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        open_pairs(tmp_path / "p.jsonl")


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    (tmp_path / "p.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid x")
    with pytest.raises(UserError, match="git lfs pull"):
        open_pairs(tmp_path / "p.parquet")


# Folders.


def test_a_folder_of_shards(tmp_path, capsys):
    for i in range(3):
        shard(tmp_path / "data" / f"0000{i}.tar", f"k{i}", first=i)
        table(tmp_path / "data" / f"0000{i}.parquet", "of the same images")
        (tmp_path / "data" / f"0000{i}_stats.json").write_text("{}")
    for folder in (tmp_path, tmp_path / "data", f"{tmp_path}/data/"):
        assert captions(folder) == ["k0", "k1", "k2"]
        assert "00000.tar and 2 more files is read" in capsys.readouterr().err


def test_a_folder_of_hugging_face_parquet_has_parts(tmp_path):
    table(tmp_path / "data" / "train-00000-of-00002.parquet", "a")
    table(tmp_path / "data" / "train-00001-of-00002.parquet", "b")
    assert captions(tmp_path) == ["a", "b"]
    table(tmp_path / "data" / "test-00000-of-00001.parquet", "c")
    with pytest.raises(UserError, match=r"the parts test, train; write one, as in '.*/test\*'"):
        open_pairs(tmp_path)
    assert captions(tmp_path / "data" / "train*") == ["a", "b"]


def test_parts_that_are_folders(tmp_path):
    shard(tmp_path / "train" / "0.tar", "a")
    assert captions(tmp_path) == ["a"]
    shard(tmp_path / "test" / "0.tar", "b", first=1)
    with pytest.raises(UserError, match=r"as in '.*/test'"):
        open_pairs(tmp_path)
    assert captions(tmp_path / "train") == ["a"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_an_image_folder_with_metadata(tmp_path, kind):
    rows = [{"file_name": f"sub/{n}.png", "text": n} for n in "ab"]
    for row in rows:
        image = tmp_path / row["file_name"]
        image.parent.mkdir(exist_ok=True)
        image.write_bytes(picture(ord(row["text"])))
        image.with_suffix(".txt").write_text("not read: metadata comes first")
    path = tmp_path / f"metadata.{kind}"
    if kind == "csv":
        path.write_text(
            "file_name,text\n" + "".join(f"{r['file_name']},{r['text']}\n" for r in rows)
        )
    elif kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    pairs = open_pairs(tmp_path)
    assert [(p.id, p.captions) for p in pairs] == [("sub/a.png", ("a",)), ("sub/b.png", ("b",))]
    np.testing.assert_array_equal(load_image(pairs[0].image), load_image(picture(ord("a"))))


def test_one_file_of_pairs_beside_its_images(tmp_path, capsys):
    lines(tmp_path / "pairs.jsonl", "a", "b")
    assert captions(tmp_path) == ["a", "b"]
    assert "pairs.jsonl is read" in capsys.readouterr().err


def test_a_folder_of_several_kinds_lists_them(tmp_path):
    lines(tmp_path / "pairs.jsonl", "a")
    shard(tmp_path / "0.tar", "b")
    with pytest.raises(UserError, match=r"several kinds: 1 of jsonl .*, 1 of webdataset"):
        open_pairs(tmp_path)


def test_a_folder_without_pairs(tmp_path):
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(UserError, match="holds no pairs that are recognised"):
        open_pairs(tmp_path)


def test_a_folder_of_images_with_texts(tmp_path):
    for name in ("b", "a", "sub/c"):
        image = tmp_path / f"{name}.png"
        image.parent.mkdir(exist_ok=True)
        image.write_bytes(picture(ord(name[-1])))
        image.with_suffix(".txt").write_text(f"{name}\nanother of {name}")
    pairs = open_pairs(tmp_path)
    assert [p.id for p in pairs] == ["a.png", "b.png", "sub/c.png"]
    assert pairs[2].captions == ("sub/c", "another of sub/c")
    np.testing.assert_array_equal(load_image(pairs[2].image), load_image(picture(ord("c"))))


def test_a_folder_of_which_a_text_changes_is_read_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ape_jax.data.table.sheet._IN_MEMORY", 0)  # Every table is kept.
    image = tmp_path / "photos" / "sub" / "a.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(picture())
    for text in ("one", "two words"):
        image.with_suffix(".txt").write_text(text)
        assert captions(tmp_path / "photos") == captions(tmp_path / "photos") == [text]


def test_a_copy_of_a_compressed_tar_that_is_gone_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ape_jax.data.table.sheet._IN_MEMORY", 0)
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(shard(tmp_path / "a.tar", "a").read_bytes()))
    pairs = open_pairs(path)
    shutil.rmtree(tmp_path / "cache" / "tars")
    with pytest.raises(ImageError, match=r"a\.tar\.gz:a\.png: .* cannot be read .*; run again"):
        load_image(pairs[0].image)
    np.testing.assert_array_equal(load_image(open_pairs(path)[0].image), load_image(picture()))


# Urls. `tests/data/test_remote.py` has the fetching itself.


@pytest.fixture
def bucket():
    memory = fsspec.filesystem("memory")
    yield memory
    memory.rm("/bucket", recursive=True)


def test_a_table_at_a_url_has_its_images_there(bucket, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path))
    rows = [("a.png", "one"), ("sub/b.png", "two"), ("memory://bucket/c.png", "three")]
    text = "image,caption\n" + "".join(f"{image},{caption}\n" for image, caption in rows)
    bucket.pipe("/bucket/p.csv", text.encode())
    for i, name in enumerate(("a.png", "sub/b.png", "c.png")):
        bucket.pipe(f"/bucket/{name}", picture(i))
    pairs = open_pairs("memory://bucket/p.csv")
    assert "3 images are at urls" in capsys.readouterr().err
    for i, pair in enumerate(pairs):
        np.testing.assert_array_equal(load_image(pair.image), load_image(picture(i)))
    first = pairs.digest
    bucket.rm("/bucket/a.png")  # It is in the cache folder.
    assert load_image(pairs[0].image).shape == (8, 8, 3)
    assert open_pairs("memory://bucket/p.csv").digest == first


def test_shards_at_urls(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path / "cache"))
    for i in range(3):
        path = shard(tmp_path / f"{i}.tar", f"k{i}", first=i)
        bucket.pipe(f"/bucket/{i}.tar", path.read_bytes())
    for spec in ("memory://bucket/*.tar", "memory://bucket/{0..2}.tar"):
        pairs = open_pairs(spec)
        assert [p.captions[0] for p in pairs] == ["k0", "k1", "k2"]
        assert pairs[1].id.endswith("bucket/1.tar/k1") and "cache" not in pairs[1].id
        np.testing.assert_array_equal(load_image(pairs[2].image), load_image(picture(2)))


def test_images_at_urls_that_are_gone_are_missing_images(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path / "cache"))
    rows = [{"image": f"memory://bucket/{i}.png", "caption": f"{i}"} for i in range(2)]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    bucket.pipe("/bucket/0.png", picture())
    pairs = open_pairs(tmp_path / "p.jsonl")
    assert load_image(pairs[0].image).shape == (8, 8, 3)
    with pytest.raises(ImageError, match=r"p\.jsonl:2 \(memory://bucket/1\.png\): .*fetched"):
        load_image(pairs[1].image)
