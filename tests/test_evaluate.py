"""Evaluating a saved run from the command line."""

import json

import pytest

from ape_jax import evaluate
from ape_jax.terminal import command


def evaluated(capsys, *arguments):
    capsys.readouterr()  # What made the test's files may have printed.
    with pytest.raises(SystemExit) as stop:
        command.run(evaluate.main, ["ape_jax", "--json", *arguments])
    assert not stop.value.code
    return json.loads(capsys.readouterr().out)


def test_saved_run_has_the_figures_of_its_summary(tiny_run, capsys):
    summary = json.loads((tiny_run / "summary.json").read_text())
    got = evaluated(capsys, f"--workdir={tiny_run}")
    kinds = ("eval/", "chance/")
    assert got == pytest.approx({k: v for k, v in summary.items() if k.startswith(kinds)})
    assert {key.partition("/")[0] for key in got} == {"eval", "chance"}


def test_people_get_a_table_and_no_json(tiny_run, capsys):
    with pytest.raises(SystemExit) as stop:
        command.run(evaluate.main, ["ape_jax", f"--workdir={tiny_run}"])
    out = capsys.readouterr().out
    assert not stop.value.code and out.startswith("| retrieval") and "{" not in out
    assert out.splitlines()[-1].startswith("| chance")


def test_zero_shot_stands_beside_chance(tiny_run, tiny, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("square\ncircle\ntriangle\nbar\n")
    one = next(iter(tiny.glob("*-square*.png")))
    (tmp_path / "labels.csv").write_text(f"image,label\n{one},square\n")
    arguments = [f"--data={tmp_path}/labels.csv", f"--classnames={tmp_path}/names.txt"]
    with pytest.raises(SystemExit):
        arguments += [f"--workdir={tiny_run}", "--task=zeroshot", "--templates=none"]
        command.run(evaluate.main, ["ape_jax", *arguments])
    chance = capsys.readouterr().out.splitlines()[-1]
    assert chance.startswith("| chance") and chance.endswith("25.0 | 100.0 |")


def test_zero_shot_counts_labels_against_class_names(tiny_run, tiny, tmp_path, capsys):
    shapes = ("square", "circle", "triangle", "bar")
    (tmp_path / "names.txt").write_text("\n".join(shapes) + "\n")
    rows = [(p, p.stem.split("-")[1]) for p in sorted(tiny.glob("*.png"))]
    text = "image,label\n" + "".join(f"{image},{label}\n" for image, label in rows)
    (tmp_path / "labels.csv").write_text(text)
    arguments = [f"--data={tmp_path}/labels.csv", f"--classnames={tmp_path}/names.txt"]
    arguments += [f"--workdir={tiny_run}", "--task=zeroshot", "--templates=none"]
    got = evaluated(capsys, *arguments)
    assert got.keys() == {"eval/zeroshot/top1", "eval/zeroshot/top5"}
    assert got["eval/zeroshot/top1"] > 0.25 and got["eval/zeroshot/top5"] == 1.0


def test_zero_shot_on_a_tfds_set_takes_its_own_names_as_prose(
    tiny_run, tiny, write_tfds, tmp_path, capsys
):
    import tensorflow_datasets as tfds

    names = [p.stem for p in sorted(tiny.glob("*.png"))]
    features = {
        "image": tfds.features.Image(encoding_format="png"),
        "label": tfds.features.ClassLabel(names=[name.replace("-", "_") for name in names]),
    }
    examples = [{"image": str(tiny / f"{n}.png"), "label": i} for i, n in enumerate(names)]
    write_tfds("drawings", features, examples)
    text = "".join(f"{tiny / n}.png,{n.replace('-', ' ')}\n" for n in names)
    (tmp_path / "labels.csv").write_text("image,label\n" + text)
    arguments = [f"--workdir={tiny_run}", "--task=zeroshot", "--templates=none"]
    got = [
        evaluated(capsys, *arguments, f"--data={data}", "--classnames=")
        for data in ("tfds:drawings:train", tmp_path / "labels.csv")
    ]
    assert got[0] == got[1] and 1 / 24 < got[0]["eval/zeroshot/top1"] < 1


def test_conservation_of_frozen_towers_is_whole(tiny_run, capsys):
    got = evaluated(capsys, f"--workdir={tiny_run}", "--task=conservation")
    assert {key.split("/")[-1] for key in got} == {"image_cka", "text_cka", "text_judgements"}
    assert list(got.values()) == pytest.approx([1] * len(got))
