"""text.pooling='own', the default, on a tower whose sentence-transformers files say the pooling."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from ape_jax import towers
from ape_jax.config import Config
from ape_jax.errors import UserError
from ape_jax.features.encode import FrozenTower
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.runs import build, forked
from ape_jax.runs.outputs import text_pooling
from ape_jax.towers.files import reading

TEXTS = ["a picture of the red circle", "the picture", "a"]


@pytest.fixture
def labse(tiny, tmp_path):
    """The tiny text tower with CLS, a dense layer and tanh behind it."""
    path = tmp_path / "text"
    shutil.copytree(tiny / "text", path)
    kinds = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense")
    listed = [{"type": f"sentence_transformers.models.{k}", "path": p} for k, p in kinds]
    (path / "modules.json").write_text(json.dumps(listed))
    for name, settings in (
        ("1_Pooling", {"pooling_mode_cls_token": True}),
        ("2_Dense", {"in_features": 32, "out_features": 12, "bias": True}),
    ):
        (path / name).mkdir()
        (path / name / "config.json").write_text(json.dumps(settings))
    rng = np.random.default_rng(0)
    tensors = {"linear.weight": (12, 32), "linear.bias": (12,)}
    tensors = {n: rng.normal(size=s).astype(np.float32) for n, s in tensors.items()}
    safetensors.numpy.save_file(tensors, path / "2_Dense" / "model.safetensors")
    return path


def model(tiny, text, **settings):
    own = {"image.tower": str(tiny / "image"), "text.tower": str(text)}
    own |= {"image.dtype": "float32", "text.dtype": "float32", "text.head.name": "linear"}
    config = Config().replace({**own, **settings})
    read = build.load_towers(config)
    return build.make_model(config, read), read, config


@pytest.mark.parametrize("tune", ["frozen", "full", "top:1"])
def test_a_caption_is_the_vector_that_the_modules_give(tiny, labse, tune):
    made, read, _ = model(tiny, labse, **{"text.tune": tune, "image.standardize": False})
    assert made.text.pooling == "head" and made.text.token_width == 12
    trainable, frozen = jax.tree.map(jnp.asarray, made.init(0, read.params))
    batch = jax.tree.map(jnp.asarray, read.text.prepare(TEXTS))
    features = made.text_features(frozen, batch)
    given = made._text_input(trainable, frozen, features)
    want = towers.load(str(labse), dtype="float32").encode(TEXTS)
    np.testing.assert_allclose(given.tokens[:, 0], want, atol=1e-5)
    assert given.tokens.shape == (3, 1, 12) and given.mask.all()
    if tune == "full":
        assert "dense_0" in trainable["text_tower"]["head"]


def test_the_cache_holds_one_vector_a_caption(tiny, labse):
    made, read, _ = model(tiny, labse)
    _, frozen = made.init(0, read.params)
    mesh = mesh_lib.make_mesh()
    params = mesh_lib.place_frozen(frozen["text_tower"], mesh, 1)
    reader = FrozenTower(tower=read.text, params=params, mesh=mesh, **made.text.tuned.reading)
    got = np.zeros((3, 12), np.float32)
    for index, rows in reader.stream_texts(TEXTS):
        got[index] = np.concatenate(rows)
    want = towers.load(str(labse), dtype="float32").encode(TEXTS)
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert reader.token_width() == 12 and reader.token_counts(TEXTS, "captions").tolist() == [1] * 3


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"text.head.name": "token_mlp"}, "text.head.name='token_mlp' reads tokens"),
        ({"text.head.name": "linear+token_mlp"}, "text.head.name='linear+token_mlp' reads tokens"),
        ({"text.layer": 1}, "text.layer is 1"),
    ],
)
def test_what_cannot_take_the_vector_has_the_pooling_before_the_modules(
    tiny, labse, capsys, monkeypatch, settings, why
):
    monkeypatch.setattr(reading, "_said", set())
    made, read, config = model(tiny, labse, **settings)
    assert made.text.pooling == "none"
    assert "head" not in made.init(0, read.params)[1]["text_tower"]
    parts = getattr(made.text.head, "part", {"linear": made.text.head}).values()
    assert {part.pooling for part in parts if hasattr(part, "pooling")} <= {"cls"}
    assert text_pooling.pooling(config, read.text) == "cls"
    said = f"{why}, so what this tower puts behind its pooling is left out; heads on one vector"
    assert f"{labse}: {said} take 'cls'" in capsys.readouterr().err


def test_own_is_what_the_files_say_and_else_the_mean_which_is_said(
    tiny, labse, capsys, monkeypatch
):
    monkeypatch.setattr(reading, "_said", set())
    shutil.rmtree(labse / "2_Dense")
    listed = json.loads((labse / "modules.json").read_text())[:2]
    (labse / "modules.json").write_text(json.dumps(listed))
    made, _, _ = model(tiny, labse)
    assert (made.text.pooling, made.text.head.pooling) == ("none", "cls")
    assert not capsys.readouterr().err
    model(tiny, labse, **{"text.head.name": "token_mlp"})
    assert "pools tokens itself; the tower's pooling, 'cls'" in capsys.readouterr().err
    made, _, _ = model(tiny, tiny / "text")
    assert made.text.head.pooling == "mean"
    assert "no file says how this tower pools, so text.pooling is 'mean'" in capsys.readouterr().err


def test_a_side_that_pools_by_modules_is_not_exported_to_torch(tiny, labse):
    from ape_jax.exporters import towers as exported

    made, read, _ = model(tiny, labse)
    with pytest.raises(UserError, match=r"Dense modules.*write --format jax"):
        exported.export(made.text, read.params["text_tower"])


def test_a_run_that_named_the_pooling_is_started_from_by_its_own_name(tiny, labse):
    shutil.rmtree(labse / "2_Dense")
    listed = json.loads((labse / "modules.json").read_text())[:2]
    (labse / "modules.json").write_text(json.dumps(listed))
    _, read, own = model(tiny, labse)
    forked.check_keys(own.replace({"text.pooling": "cls"}), own, read.text)
    with pytest.raises(UserError, match=r"--config\.text\.pooling='mean'"):
        forked.check_keys(own.replace({"text.pooling": "mean"}), own, read.text)
