"""Config values as a work directory records them."""

import os

import pytest

from ape_jax.runs.directory import recorded


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder that the process is in, with files; the home folder has the same."""
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    for folder in (tmp_path / "here", home):
        (folder / "vit").mkdir(parents=True)
        (folder / "model.npz").touch()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


TOWERS = {
    "vit": "HERE/vit",
    "./vit/": "HERE/vit",
    "../here/vit": "HERE/vit",
    "~/vit": "HOME/vit",
    "model.npz": "HERE/model.npz",
    "torch:hf:vit": "torch:hf:HERE/vit",
    "torch:timm:~/vit": "torch:timm:HOME/vit",
    "torch:hf:org/name": "torch:hf:org/name",
    "torch:st:": "torch:st:",
    "hf:org/vit": "hf:org/vit",
    "demo:bert": "demo:bert",
    "features:16": "features:16",
    "": "",
}


@pytest.mark.parametrize("key", ["image.tower", "text.tower", "start.run", "start.model"])
@pytest.mark.parametrize("spec", TOWERS)
def test_a_tower_is_recorded_by_its_absolute_path(here, key, spec):
    wanted = TOWERS[spec].replace("HERE", str(here)).replace("HOME", os.environ["HOME"])
    assert recorded.recorded(here / "run", {key: spec}) == {key: wanted}
    assert recorded.absolute({key: wanted}) == {key: wanted}


PAIRS = {
    "a.jsonl": "HERE/a.jsonl",
    "~/a.jsonl": "HOME/a.jsonl",
    "a.jsonl::b.tar": "HERE/a.jsonl::HERE/b.tar",
    "features:A.npy,B.npy": "features:HERE/A.npy,HERE/B.npy",
    "a-{00..03}.tar": "HERE/a-{00..03}.tar",
    "a,b.jsonl": "HERE/a,b.jsonl",
    "s3://bucket/a.tar": "s3://bucket/a.tar",
    "demo:icons:train": "demo:icons:train",
    "HERE/run/data/p.parquet": "workdir:data/p.parquet",
    "": "",
}


@pytest.mark.parametrize("spec", PAIRS)
def test_pairs_are_recorded_by_their_absolute_paths(here, spec):
    spec, wanted = (
        text.replace("HERE", str(here)).replace("HOME", os.environ["HOME"])
        for text in (spec, PAIRS[spec])
    )
    flat = {"data.pairs": spec, "data.eval": {"test": spec}}
    found = recorded.recorded(here / "run", flat)
    assert found == {"data.pairs": wanted, "data.eval": {"test": wanted}}
    moved = recorded.found(here / "moved", found)["data.pairs"]
    assert moved == wanted.replace("workdir:", f"{here}/moved/")


@pytest.mark.parametrize("names", ["names.txt", "~/names.txt", "/a/names.txt", ""])
def test_names_of_classes_are_recorded_by_their_absolute_path(here, names):
    wanted = {"names.txt": f"{here}/names.txt", "~/names.txt": f"{os.environ['HOME']}/names.txt"}
    expected = {"classifier.names": wanted.get(names, names)}
    assert recorded.recorded(here / "run", {"classifier.names": names}) == expected


@pytest.mark.parametrize("value", [None, 3, [], {}, {"": 3}, True])
def test_values_of_another_kind_stay_for_the_check_to_find(here, value):
    for key in ("image.tower", "start.run", "data.pairs", "data.eval"):
        assert recorded.absolute({key: value}) == {key: value}
