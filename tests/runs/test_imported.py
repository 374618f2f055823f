"""Finished two-tower models as ours, against the torch models that they are."""

import json

import jax
import numpy as np
import pytest
import torch
from PIL import Image

import ape_jax
from ape_jax import UserError, evaluate, towers
from ape_jax import config as config_lib
from ape_jax.runs import build, imported
from ape_jax.terminal import command
from ape_jax.towers import aligned
from ape_jax.training import run as run_lib

TEXTS = ["a red square", "blue", "the picture of a yellow bar", "a " * 40]


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 36, 3), np.uint8)) for _ in range(3)]


def in_torch(model, tower_inputs, images):
    """Unit-length embeddings and logits of a torch model; SigLIP takes no mask."""
    pixels, batch = tower_inputs
    inputs = {"input_ids": torch.tensor(batch["ids"]).long()}
    if model.config.model_type != "siglip":
        inputs["attention_mask"] = torch.tensor(batch["mask"]).long()
    with torch.inference_mode():
        out = model(pixel_values=torch.tensor(pixels).permute(0, 3, 1, 2), **inputs)
    unit = (torch.nn.functional.normalize(z, dim=-1) for z in (out.image_embeds, out.text_embeds))
    return *(z.numpy() for z in unit), out.logits_per_image.numpy()


def assert_same(model, path, images):
    ours = ape_jax.load(path)
    zimg, ztxt = ours.encode_image(images), ours.encode_text(TEXTS)
    prepare = [towers.load(path, kind=kind).prepare for kind in ("image", "text")]
    inputs = prepare[0](images)["image"], prepare[1](TEXTS)
    want_image, want_text, logits = in_torch(model, inputs, images)
    for got, want in ((zimg, want_image), (ztxt, want_text)):
        assert np.abs(got - want).max() <= 1e-5
        assert (got * want).sum(axis=1).min() >= 0.99999
        assert (want @ want.T).min() < 0.999  # Not all the same.
    np.testing.assert_allclose(
        ours.scale * zimg @ ztxt.T + (ours.bias or 0.0), logits, rtol=1e-4, atol=1e-4
    )
    return ours


@pytest.mark.parametrize("name", ["clip+bert", "siglip"])
def test_embeddings_and_logits_are_those_of_torch(finished, images, name):
    ours = assert_same(*finished(name), images)
    assert (ours.bias is not None) == (name == "siglip")
    hits = ours.retrieve(["a red bar"], images, k=2)
    assert len(hits[0]) == 2 and hits[0][0][1] >= hits[0][1][1]
    np.testing.assert_allclose(ours.classify(images, ["red", "bar"]).sum(axis=1), 1, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["clip", "vit+roberta", "dinov2+mpnet", "siglip+clip_text", "dinov2+bert"]
)
def test_embeddings_and_logits_are_those_of_torch_for_every_family(finished, images, name):
    assert_same(*finished(name), images)


def test_two_towers_of_big_vision_have_their_heads(finished, images, tmp_path):
    """Towers of transformers in big_vision's names; their own tests hold them to torch."""
    from ape_jax.towers.files import names
    from ape_jax.towers.text import big_vision as big_vision_text
    from ape_jax.towers.vision import big_vision

    path = finished("siglip")[1]
    arrays = {"params/t": np.float32([2.5]), "params/b": np.float32([-3.0])}
    for kind, table, prefix in (
        ("image", big_vision.SCANNED_NAMES, "params/img/"),
        ("text", big_vision_text.TRANSFORMER_TABLES[1], "params/txt/"),
    ):
        params = ape_jax.towers.load(path, kind=kind).params
        arrays |= names.to_file(table, params, heads=4, prefix=prefix)
    kernel, bias = aligned.read(str(path)).text.projection
    arrays |= {"params/txt/head/kernel": kernel, "params/txt/head/bias": bias}
    np.savez(tmp_path / "bv.npz", **arrays)
    content = json.loads((path / "tokenizer.json").read_text())
    content["model"]["vocab"]["</s>"] = content["model"]["vocab"].pop("triangle")
    (tmp_path / "bv.tokenizer.json").write_text(json.dumps(content))
    ours, theirs = imported.load(tmp_path / "bv.npz"), imported.load(path)
    assert np.exp(ours.trainable["loss"]["log_scale"]) == pytest.approx(np.exp(2.5))
    assert ours.trainable["loss"]["bias"] == -3
    assert ours.config.image.head.name == "identity" and ours.model.image.pooling == "map"
    heads = (run.trainable["text_head"] for run in (ours, theirs))
    jax.tree.map(np.testing.assert_array_equal, *heads)
    jax.tree.map(np.testing.assert_array_equal, ours.frozen, theirs.frozen)


def run_config(finished, tiny, **settings):
    path = str(finished("clip+bert")[1])
    heads = imported.config_settings(aligned.read(path))
    own = {"image.tower": path, "text.tower": path, "start.model": path, "loss.scale_max": 1e4}
    own |= {"data.pairs": str(tiny / "pairs.jsonl"), "train.batch": 16, "train.steps": 2}
    return config_lib.resolve({**heads, **own, **settings})


def test_heads_and_scale_of_training_start_from_the_model(finished, tiny):
    config = run_config(finished, tiny)
    made = run_lib.assemble(config, build.load_towers(config))
    started = made.trainable
    found = aligned.read(config.start.model)
    kernel = started["text_head"]["dense_1"]["kernel"]
    np.testing.assert_array_equal(kernel, found.text.projection[0])
    np.testing.assert_array_equal(started["text_head"]["dense_0"]["bias"], found.text.pooler[1])
    assert started["loss"]["log_scale"] == found.log_scale
    fresh = made.model.init(0, build.load_towers(config).params)[0]
    assert jax.tree.structure(started) == jax.tree.structure(fresh)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"text.head.name": "linear", "text.head.depth": 4, "text.head.activation": "gelu"},
         "write text.head.name='pooled_mlp', text.head.depth=2, text.head.activation='tanh'"),
        ({"embed": 24}, "write embed=512"),
        ({"loss.scale_max": 15.0}, "write loss.scale_max"),
        ({"start.model": "no/such"}, "config.start.model: tower 'no/such' does not exist"),
    ],
)  # fmt: skip
def test_a_start_that_does_not_fit_is_one_sentence(finished, tiny, settings, words):
    config = run_config(finished, tiny, **settings)
    with pytest.raises(UserError, match=words) as error:
        imported.start(config, {})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss.scale": 20.0}, r"config\.loss\.scale: 20\.0 has no effect"),
        ({"image.standardize": True}, "config.image.standardize"),
        ({"method": "cca"}, "config.start.model: heads start from a model or from a closed form"),
    ],
)
def test_keys_that_do_not_go_with_a_start_are_named(finished, tiny, settings, words):
    with pytest.raises(UserError, match=words):
        run_config(finished, tiny, **settings)


def test_heads_of_other_towers_are_named(finished):
    found = aligned.read(str(finished("clip+bert")[1]))
    with pytest.raises(
        UserError, match=r"x: the image head should be \(none\).*kernel \[32, 512\]"
    ):
        imported.install({"loss": {}}, found, "x")


def test_the_evaluate_command_takes_a_finished_model(finished, tiny, tmp_path, capsys):
    lines = (tiny / "pairs.jsonl").read_text().splitlines()[:8]
    labelled = [json.loads(line) for line in lines]
    table = "".join(f"{tiny / row['image']},{row['id'].split('-')[0]}\n" for row in labelled)
    (tmp_path / "labelled.csv").write_text("image,label\n" + table)
    path = finished("clip+bert")[1]
    for task, data, key in (
        ("retrieval", tiny / "pairs.jsonl", "eval/data/t2i_r1"),
        ("zeroshot", tmp_path / "labelled.csv", "eval/zeroshot/top1"),
    ):
        flags = [f"--workdir={path}", f"--task={task}", f"--data={data}", "--templates=none"]
        with pytest.raises(SystemExit) as stop:
            command.run(evaluate.main, ["ape_jax", "--json", *flags])
        said = capsys.readouterr()
        assert not stop.value.code, said.err
        assert 0 <= json.loads(said.out.splitlines()[-1])[key] <= 1
    for task, words in (("retrieval", "--data: the model has no data.eval"),
                        ("conservation", "is a finished model")):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            command.run(
                evaluate.main, ["ape_jax", f"--workdir={path}", f"--task={task}", "--data="]
            )
        said = capsys.readouterr().err
        assert stop.value.code == 1 and words in said and said.count("\n") == 1
