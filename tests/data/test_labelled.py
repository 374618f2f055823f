"""Labelled images: what a label may be, in every format, and what is said of others."""

import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ape_jax.data import open_labelled
from ape_jax.data.options import Reading
from ape_jax.errors import UserError

NAMES = ["circle", "tabby cat"]


def png(value: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(autouse=True)
def images(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(png(i))


def rows(labels, image="image", label="label"):
    return [{image: f"{i}.png", label: value} for i, value in enumerate(labels)]


def jsonl(folder, labels, **names):
    path = folder / "p.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows(labels, **names)))
    return path


def table(folder, labels, separator=",", name="p.csv", **names):
    made = rows(labels, **names)
    lines = [separator.join(made[0]), *(separator.join(map(str, r.values())) for r in made)]
    (folder / name).write_text("\n".join(lines))
    return folder / name


def tabs(folder, labels, **names):
    return table(folder, labels, "\t", "p.tsv", **names)


def parquet(folder, labels, **names):
    pq.write_table(pa.Table.from_pylist(rows(labels, **names)), folder / "p.parquet")
    return folder / "p.parquet"


def tar(folder, labels):
    with tarfile.open(folder / "p.tar", "w") as archive:
        for i, label in enumerate(labels):
            for name, data in ((f"{i}.png", png(i)), (f"{i}.cls", str(label).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return folder / "p.tar"


def labels(labelled):
    return [item.label for item in labelled]


WRITERS = [jsonl, table, tabs, parquet, tar]


@pytest.mark.parametrize("write", WRITERS)
def test_numbers_without_names_are_refused_in_every_format(write, tmp_path):
    with pytest.raises(UserError, match=r"the number 1 and there are no class names.*by name"):
        open_labelled(write(tmp_path, [1, 0, 1]))


@pytest.mark.parametrize("write", WRITERS)
def test_numbers_are_indices_of_the_names(write, tmp_path):
    assert labels(open_labelled(write(tmp_path, [1, 0, 1]), NAMES)) == [1, 0, 1]


@pytest.mark.parametrize("write", WRITERS)
def test_names_are_classes_sorted(write, tmp_path):
    opened = open_labelled(write(tmp_path, ["tabby cat", "circle", "tabby cat"]))
    assert opened.classnames == ("circle", "tabby cat") and labels(opened) == [1, 0, 1]


@pytest.mark.parametrize("write", [jsonl, table, parquet])
def test_floats_that_are_whole_are_numbers(write, tmp_path):
    assert labels(open_labelled(write(tmp_path, [1.0, 0.0]), NAMES)) == [1, 0]
    with pytest.raises(UserError, match=r"1\.5"):
        open_labelled(write(tmp_path, [0.0, 1.5]), NAMES)


@pytest.mark.parametrize("write", [jsonl, table, tabs, parquet])
@pytest.mark.parametrize(
    ("image", "label"), [("img", "fine_label"), ("File_Name", "Class Name"), ("path", "target")]
)
def test_usual_names_of_columns_are_found_and_said(write, image, label, tmp_path, capsys):
    path = write(tmp_path, NAMES, image=image, label=label)
    assert labels(open_labelled(path)) == [0, 1]
    said = capsys.readouterr().err
    assert f"images from {image!r}, labels from {label!r}" in said


@pytest.mark.parametrize("wrong", ["Tabby_Cat", "tabby-cat", "TABBY CAT"])
def test_names_in_another_case_or_with_other_marks_are_suggested(wrong, tmp_path):
    with pytest.raises(UserError, match=f"{wrong!r} is not among.*'tabby cat' is; write"):
        open_labelled(jsonl(tmp_path, ["circle", wrong, wrong]), NAMES)


def test_a_file_of_names_beside_the_labels_is_suggested_and_not_taken(tmp_path):
    (tmp_path / "classnames.txt").write_text("\n".join(NAMES))
    with pytest.raises(UserError, match=r"no class names.*classnames\.txt lies beside it"):
        open_labelled(table(tmp_path, [1, 0]))


def test_numbers_outside_the_names_stop_also_where_rows_may_be_left_out(tmp_path):
    path = jsonl(tmp_path, [1, 2, 1])
    reading = Reading(on_error="skip", max_skipped=1)
    with pytest.raises(UserError, match=r"the label 2 is outside 0 to 1.*count from 0"):
        open_labelled(path, NAMES, reading=reading)


def test_rows_without_a_label_are_left_out_where_that_is_asked(tmp_path, capsys):
    path = jsonl(tmp_path, ["circle", None, "", "tabby cat"])
    opened = open_labelled(path, reading=Reading(on_error="skip", max_skipped=1))
    assert labels(opened) == [0, 1]
    assert "left out 2 of 4 images (no label 2)" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"p.jsonl:2: 'label' is None.*2 of 4 images cannot"):
        open_labelled(path)
    with pytest.raises(UserError, match=r"data.max_skipped=0.05"):
        open_labelled(path, reading=Reading(on_error="skip"))


@pytest.mark.parametrize("names", [None, "prose", "imagenet"])
def test_wordnet_ids_have_the_names_of_clip(names, tmp_path):
    from ape_jax.demo import prompts

    clip = prompts.imagenet_classnames()
    given = {None: None, "prose": ["goldfish", "tench"], "imagenet": clip}[names]
    path = jsonl(tmp_path, ["n01443537", "n01440764", "n01443537"])
    opened = open_labelled(path, given)
    assert [opened.classnames[i] for i in labels(opened)] == ["goldfish", "tench", "goldfish"]
    assert len(opened.classnames) == (1000 if names == "imagenet" else 2)


def test_two_classes_of_one_name_stay_two(tmp_path):
    path = jsonl(tmp_path, ["n04008634", "n03773504"])  # Both are "missile" to CLIP.
    assert labels(open_labelled(path)) == [1, 0]


def folder_of(tmp_path, *names):
    for i, name in enumerate(names):
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / "x.png").write_bytes(png(i))
    return tmp_path / "d"


def test_folders_are_classes_named_in_prose(tmp_path):
    opened = open_labelled(folder_of(tmp_path, "tabby_cat", "circle"))
    assert opened.classnames == ("circle", "tabby cat") and labels(opened) == [0, 1]


def test_folders_by_wordnet_id(tmp_path):
    opened = open_labelled(folder_of(tmp_path, "n01443537", "n01440764"))
    assert opened.classnames == ("tench", "goldfish") and labels(opened) == [0, 1]


def test_folders_by_number_count_the_names(tmp_path):
    folder = folder_of(tmp_path, *map(str, range(11)))
    names = [f"class {i}" for i in range(11)]
    opened = open_labelled(folder, names)
    assert [opened.classnames[i] for i in labels(opened)] == sorted(
        names, key=lambda name: name.split()[1]
    )
    with pytest.raises(UserError, match="no class names"):
        open_labelled(folder)


def test_imagenet_s_list_with_clip_s_names(tmp_path):
    from ape_jax.demo import prompts

    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(png(0))
    (tmp_path / "val.txt").write_text("ILSVRC2012_val_00000001.JPEG 65\n")
    opened = open_labelled(tmp_path / "val.txt", prompts.imagenet_classnames())
    assert opened.classnames[opened[0].label] == "sea snake"
