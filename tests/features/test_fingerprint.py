"""What features depend on, told apart part by part."""

import dataclasses
import re

import pytest

from ape_jax import towers
from ape_jax.data.specs import open_pairs
from ape_jax.features import fingerprint
from ape_jax.features.encode import FrozenTower
from ape_jax.parallel import mesh as mesh_lib


@pytest.fixture(scope="module")
def frozen(tiny):
    def make(kind, layer=-1, pooling="none", **options):
        tower = towers.load(str(tiny / kind), kind=kind, **{"dtype": "float32", **options})
        mesh = mesh_lib.make_mesh()
        params = mesh_lib.place_replicated(tower.params, mesh)
        return FrozenTower(
            tower=tower.tower, params=params, mesh=mesh, layer=layer, pooling=pooling
        )

    return make


@pytest.fixture(scope="module")
def pairs(tiny):
    return open_pairs(str(tiny / "pairs.jsonl"))


def test_texts_tell_apart_all_that_changes_their_features(frozen):
    texts = ("a red bar", "the bar")

    def of(tower, texts=texts, dtype="bfloat16"):
        return fingerprint.of_captions(tower, texts, "pairs", dtype, {"captions a shard": 4})

    base = of(frozen("text"))
    others = {
        "layer": of(frozen("text", layer=1)),
        "prefix": of(frozen("text", prefix="the ")),
        "maximum length": of(frozen("text", max_length=8)),
        "compute dtype": of(frozen("text", dtype="bfloat16")),
        "stored dtype": of(frozen("text"), dtype="float32"),
        "captions": of(frozen("text"), ("a red bar", "the  bar")),
    }
    assert of(frozen("text")).digest == base.digest
    assert len({base.digest, *(other.digest for other in others.values())}) == 7
    for part, other in others.items():
        assert any(d.startswith(f"{part}: ") for d in other.differences(base.parts))


def test_images_tell_apart_all_that_changes_their_features(frozen, pairs):
    def of(tower, pairs=pairs, **reading):
        return fingerprint.of_images(tower, pairs, "bfloat16", reading)

    base = of(frozen("image", pooling="cls"), views=1)
    fewer = pairs.take(range(23))
    others = {
        "pooling": of(frozen("image", pooling="mean"), views=1),
        "preparation size": of(frozen("image", pooling="cls", image_size=24), views=1),
        "views": of(frozen("image", pooling="cls"), views=2),
        "pairs content": of(frozen("image", pooling="cls"), fewer, views=1),
    }
    assert len({base.digest, *(other.digest for other in others.values())}) == 5
    for part, other in others.items():
        assert any(d.startswith(f"{part}: ") for d in other.differences(base.parts))


def test_changed_weight_is_a_changed_part(frozen, tiny, tmp_path, pairs):
    import shutil

    from safetensors.numpy import load_file, save_file

    shutil.copytree(tiny / "image", tmp_path / "image")
    tensors = load_file(tmp_path / "image/model.safetensors")
    name = sorted(tensors)[5]
    tensors[name] = tensors[name].copy()
    tensors[name].flat[0] += 1e-3
    save_file(tensors, tmp_path / "image/model.safetensors", {"format": "pt"})
    before = frozen("image", pooling="cls")
    after, _ = towers.read(str(tmp_path / "image"), kind="image", dtype="float32")
    changed = dataclasses.replace(before, tower=after)
    parts = fingerprint.of_images(before, pairs, "bfloat16", {}).parts
    differences = fingerprint.of_images(changed, pairs, "bfloat16", {}).differences(parts)
    assert len(differences) == 1
    assert re.fullmatch(r"tower weights: \w{24}\.\.\. -> \w{24}\.\.\.", differences[0])


def test_names_do_not_count_but_can_be_read_from_the_directory():
    def of(pairs, tower):
        return fingerprint.Fingerprint(kind="images", tower=tower, pairs=pairs, parts={"a": "1"})

    a, b = of("/data/x.jsonl", "hf:org/vit"), of("tfds:coco:train", "demo:vit_s14")
    assert a.digest == b.digest
    assert a.name == f"images-x.jsonl-vit-{a.digest[:12]}"
    assert b.name == f"images-tfds_coco_train-demo_vit_s14-{a.digest[:12]}"
