"""The same pairs through every format, and what each format allows."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ape_jax.data import open_labelled, open_pairs
from ape_jax.data.places.patterns import expand_braces
from ape_jax.errors import UserError
from ape_jax.images.decode import load_image

CAPTIONS = {"a.png": ("a cat", "eine Katze"), "sub/b.png": ('un perro, "grande"\nsí',)}


def png(seed: int, size: int = 8) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for i, name in enumerate(CAPTIONS):
        (tmp_path / name).write_bytes(png(i))
    return tmp_path


def write_tar(path, members: dict[str, bytes]):
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def rows() -> list[tuple[str, str]]:
    return [(image, caption) for image, captions in CAPTIONS.items() for caption in captions]


def _jsonl(folder):
    lines = [json.dumps({"image": n, "captions": c}) for n, c in CAPTIONS.items()]
    (folder / "pairs.jsonl").write_text("\n".join(lines))
    return folder / "pairs.jsonl"


def _jsonl_singles(folder):
    lines = [json.dumps({"image": n, "caption": c}, ensure_ascii=False) for n, c in rows()]
    text = "\ufeff" + "\r\n\r\n".join(lines) + "\r\n"
    (folder / "pairs.jsonl").write_bytes(text.encode())
    return folder / "pairs.jsonl"


def _csv(folder, separator=",", name="pairs.csv", encoding="utf-8-sig", end="\r\n"):
    quoted = ['"' + c.replace('"', '""') + '"' for _, c in rows()]
    lines = [
        f"image{separator}caption",
        *(f"{n}{separator}{q}" for (n, _), q in zip(rows(), quoted)),
    ]
    (folder / name).write_bytes(end.join([*lines, "", ""]).encode(encoding))
    return folder / name


def _tsv(folder):
    return _csv(folder, "\t", "pairs.tsv", "utf-8", "\n")


def _parquet_paths(folder):
    table = pa.table({"image": [r[0] for r in rows()], "caption": [r[1] for r in rows()]})
    pq.write_table(table, folder / "pairs.parquet", row_group_size=2)
    return folder / "pairs.parquet"


def _parquet_bytes(folder):
    images = [(folder / r[0]).read_bytes() for r in rows()]
    pq.write_table(
        pa.table({"image": images, "caption": [r[1] for r in rows()]}), folder / "p.parquet"
    )
    return folder / "p.parquet"


def _parquet_hf(folder):
    images = [{"bytes": (folder / n).read_bytes(), "path": n} for n in CAPTIONS]
    table = pa.table({"image": images, "captions": [list(c) for c in CAPTIONS.values()]})
    pq.write_table(table, folder / "p.parquet", row_group_size=1)
    return folder / "p.parquet"


def _tar_json(folder):
    members = {}
    for i, (name, captions) in enumerate(CAPTIONS.items()):
        members[f"x/{i}.png"] = (folder / name).read_bytes()
        members[f"x/{i}.json"] = json.dumps({"captions": captions, "width": 8}).encode()
        members[f"x/{i}.npy"] = b"not read"
    return write_tar(folder / "pairs.tar", members)


@pytest.fixture
def little_tfds(folder, write_tfds) -> str:
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
        "captions": tfds.features.Sequence({"text": tfds.features.Text()}),
        "label": tfds.features.ClassLabel(names=["cat", "dog"]),
    }
    examples = [
        {"image": str(folder / n), "captions": [{"text": c} for c in captions], "label": i}
        for i, (n, captions) in enumerate(CAPTIONS.items())
    ]
    write_tfds("little_pairs", features, examples)
    return "tfds:little_pairs:train"


FORMATS = [
    _jsonl, _jsonl_singles, _csv, _tsv, _parquet_paths, _parquet_bytes, _parquet_hf, _tar_json,
]  # fmt: skip


def check_pairs(pairs, folder):
    assert (len(pairs), pairs.num_captions) == (2, 3)
    names = {captions: name for name, captions in CAPTIONS.items()}
    for pair in pairs:
        expected = np.asarray(Image.open(folder / names.pop(pair.captions)))
        np.testing.assert_array_equal(load_image(pair.image), expected)


@pytest.mark.parametrize("write", FORMATS)
def test_every_format_holds_the_same_pairs(write, folder):
    pairs = open_pairs(write(folder))
    assert [p.captions for p in pairs] == list(CAPTIONS.values())
    check_pairs(pairs, folder)


def test_tfds_with_the_nested_captions_of_coco(folder, little_tfds):
    check_pairs(open_pairs(little_tfds), folder)


def test_ids_are_paths_as_seen_from_the_pairs_file(folder):
    lines = [
        {"image": "a.png", "caption": "x"},
        {"image": f"{folder}/sub/../sub/b.png", "caption": "y"},
        {"image": "./a.png", "caption": "z"},
        {"image": "./a.png", "caption": "x"},
    ]
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert [(p.id, p.captions) for p in open_pairs(path)] == [
        ("a.png", ("x", "z")),
        ("sub/b.png", ("y",)),
    ]


def test_explicit_ids_merge_and_integers_become_text(folder):
    lines = [
        {"image": "a.png", "caption": " one ", "id": 7},
        {"image": "sub/b.png", "caption": "two", "id": "8"},
        {"image": "a.png", "captions": ["three", "one"], "id": "7"},
    ]
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    pairs = open_pairs(path)
    assert [(p.id, p.captions) for p in pairs] == [("7", ("one", "three")), ("8", ("two",))]


def test_names_in_messages_hold_file_line_and_image(folder):
    assert open_pairs(_csv(folder))[1].image.name.endswith("pairs.csv:4 (sub/b.png)")


def test_tar_text_member_wins_over_json_and_shards_follow_each_other(folder):
    for i in range(3):
        write_tar(
            folder / f"s-{i:03}.tar",
            {
                "__meta.txt": b"skipped",
                "0.jpg": png(i),
                "0.txt": f"caption {i}\n".encode(),
                "0.json": b'{"caption": null, "id": "id%d"}' % i,
            },
        )
    pairs = open_pairs(str(folder / "s-{000..002}.tar"))
    assert [p.captions for p in pairs] == [(f"caption {i}",) for i in range(3)]
    assert [p.id for p in pairs] == ["id0", "id1", "id2"]
    np.testing.assert_array_equal(load_image(pairs[2].image), load_image(png(2)))


def test_tar_with_long_and_unicode_names(folder):
    name = "ä" * 90 + "/" + "x" * 120
    write_tar(folder / "a.tar", {f"{name}.png": png(0), f"{name}.txt": b"long"})
    assert open_pairs(folder / "a.tar")[0].captions == ("long",)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("{9..11}", ["9", "10", "11"]),
        ("{a,b}-{0..1}", ["a-0", "a-1", "b-0", "b-1"]),
    ],
)
def test_braces(spec, expected):
    assert expand_braces(spec, "k") == expected


@pytest.mark.parametrize(
    "spec", ["{0..1", "0..1}", "{3..1}", "{}", "{0..999999}", "{0..99999}{0..9}"]
)
def test_bad_braces_name_the_key(spec):
    with pytest.raises(UserError, match=r"data\.pairs: "):
        expand_braces(spec, "data.pairs")


def test_digest_is_the_same_elsewhere_and_counts_content(folder, tmp_path_factory):
    first = open_pairs(_jsonl(folder)).digest
    other = tmp_path_factory.mktemp("elsewhere")
    (other / "sub").mkdir()
    for name in CAPTIONS:
        (other / name).write_bytes((folder / name).read_bytes())
    assert open_pairs(_jsonl(other)).digest == first
    assert open_pairs(_csv(other)).digest == first
    changed = bytearray((other / "a.png").read_bytes())
    changed[-20] ^= 1
    (other / "a.png").write_bytes(changed)
    assert open_pairs(_csv(other)).digest != first


@pytest.mark.parametrize(
    "change", [lambda c: {**c, "a.png": ("a cat",)}, lambda c: dict(reversed(c.items()))]
)
def test_digest_counts_captions_and_order(change, folder, monkeypatch):
    first = open_pairs(_jsonl(folder)).digest
    monkeypatch.setattr(f"{__name__}.CAPTIONS", change(CAPTIONS))
    assert open_pairs(_jsonl(folder)).digest != first


def test_digest_leaves_an_unreadable_image_to_whoever_decodes_it(folder, monkeypatch):
    def denied(*_):
        raise PermissionError

    monkeypatch.setattr("hashlib.file_digest", denied)
    assert len(open_pairs(_jsonl(folder)).digest) == 64


def test_digest_of_a_large_set_uses_sizes(folder, monkeypatch):
    monkeypatch.setattr("ape_jax.data.table.identity._CONTENT_IMAGES", 1)
    first = open_pairs(_jsonl(folder)).digest
    assert open_pairs(_jsonl(folder)).digest == first
    (folder / "a.png").write_bytes(png(0) + b"\0")
    assert open_pairs(_jsonl(folder)).digest != first


def _labels(folder, *labels):
    names = list(CAPTIONS)
    lines = [json.dumps({"image": n, "label": v}) for n, v in zip(names, labels)]
    (folder / "labels.jsonl").write_text("\n".join(lines))
    return folder / "labels.jsonl"


def test_labels_by_name_or_index(folder):
    labelled = open_labelled(_labels(folder, "dog", 0), ["cat", "dog"])
    assert [label for _, label in labelled] == [1, 0] and labelled[0].image.name.endswith("(a.png)")


def test_labels_without_classnames_are_the_sorted_names(folder):
    labelled = open_labelled(_labels(folder, "dog", "cat"))
    assert (labelled.classnames, [i.label for i in labelled]) == (("cat", "dog"), [1, 0])


def test_csv_cells_that_are_integers_are_indices_unless_they_are_names(folder):
    (folder / "l.csv").write_text("image,label\na.png,1\nsub/b.png,0\n")
    assert [x.label for x in open_labelled(folder / "l.csv", ["cat", "dog"])] == [1, 0]
    assert [x.label for x in open_labelled(folder / "l.csv", ["1", "0"])] == [0, 1]


def test_tar_class_member_is_a_label(folder):
    write_tar(folder / "l.tar", {"0.png": png(0), "0.cls": b"1\n"})
    assert open_labelled(folder / "l.tar", ["cat", "dog"])[0].label == 1


def test_parquet_labels(folder):
    pq.write_table(pa.table({"image": ["a.png"], "label": [1]}), folder / "l.parquet")
    assert open_labelled(folder / "l.parquet", ["cat", "dog"])[0].label == 1


def test_tfds_labels_by_their_names_or_in_their_order(little_tfds):
    spec = little_tfds
    image_of = {item.label: load_image(item.image) for item in open_labelled(spec)}
    assert open_labelled(spec).classnames == ("cat", "dog")
    for names, flip in ((["dog", "cat"], True), (["Katze", "Hund"], False)):
        for item in open_labelled(spec, names):
            expected = image_of[1 - item.label if flip else item.label]
            np.testing.assert_array_equal(load_image(item.image), expected)
    with pytest.raises(UserError, match="2 classes"):
        open_labelled(spec, ["a", "b", "c"])


@pytest.fixture
def dishes(folder, write_tfds) -> str:
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(encoding_format="png"),
        "label": tfds.features.ClassLabel(names=["apple_pie", "beet_salad", "pho"]),
    }
    examples = [{"image": str(folder / "a.png"), "label": label} for label in (2, 0)]
    write_tfds("dishes", features, examples)
    return "tfds:dishes:train"


def test_tfds_names_are_prose_and_other_names_keep_the_labels_meaning(dishes):
    def named(names=None):
        labelled = open_labelled(dishes, names)
        return sorted(labelled.classnames[item.label] for item in labelled)

    assert named() == ["apple pie", "pho"]
    assert named(["pho", "Beet salad", "Apple Pie"]) == ["Apple Pie", "pho"]
    assert named(["Apfelkuchen", "Rote Bete", "Pho"]) == ["Apfelkuchen", "Pho"]
    assert named(["dish", "Rote Bete", "dish"]) == ["dish", "dish"]


def test_tfds_names_in_another_order_than_the_labels_are_refused(dishes):
    with pytest.raises(UserError, match=r"class 0 is 'applepie' .* and 'pho' in the class names"):
        open_labelled(dishes, ["pho", "Rote Bete", "apple pie"])


def test_tfds_slices_and_versions(little_tfds):
    assert len(open_pairs(f"{little_tfds}[:1]")) == 1
    assert len(open_pairs("tfds:little_pairs:1.0.0:train")) == 2


def test_tfds_with_plain_text_and_ids(folder, write_tfds):
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(encoding_format="png"),
        "text": tfds.features.Text(),
        "image/id": tfds.features.Scalar(dtype=np.int64),
    }
    write_tfds("plain", features, [{"image": str(folder / "a.png"), "text": "ä", "image/id": 42}])
    pair = open_pairs("tfds:plain:train")[0]
    assert (pair.id, pair.captions) == ("42", ("ä",))


def test_demo_pairs_and_labels(monkeypatch):
    from ape_jax.demo.emoji import pairs as emoji

    names = (("en", "red apple"), ("de", "apple")), (("en", "cat"), ("de", "cat"))
    made = [(png(0), names[0], "1f34e", "apple"), (png(1), names[1], "1f408", "cat")]
    asked = []
    monkeypatch.setattr(emoji, "read_named", lambda *a: asked.append(a) or made)
    pairs = open_pairs("demo:twemoji/de:test")
    assert asked == [("twemoji", "de", "test")]
    assert [(p.id, p.captions) for p in pairs] == [
        ("1f34e", ("red apple", "apple")),
        ("1f408", ("cat",)),
    ]
    assert open_labelled("demo:openmoji:train").classnames == ("apple", "cat")
    assert asked[1] == ("openmoji", "en", "train")
