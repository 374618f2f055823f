"""Free pairs of a run: the term, the feed, closed forms, resuming, and what is refused."""

import json
import shutil

import jax
import numpy as np
import pytest
import scipy.special
from safetensors.numpy import load_file, save_file

from ape_jax import config as config_lib
from ape_jax.align import free_pairs as align_free
from ape_jax.align.closed_form import appended, cca
from ape_jax.align.free_pairs import PREFIX
from ape_jax.align.losses.contrastive import negative_mask
from ape_jax.align.losses.objective import from_config
from ape_jax.errors import UserError
from ape_jax.features.dataset import FeatureStore
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.planner import estimate, slices
from ape_jax.runs import build
from ape_jax.runs.restore import restore
from ape_jax.training import loop, run, solve
from ape_jax.training import step as step_lib
from ape_jax.training.input import opened
from ape_jax.training.input.feed import open_feed
from tests.tiny_world import COLOURS, SHAPES
from tests.training.test_loop import (  # noqa: F401
    Killed,
    assert_same_bits,
    final_parameters,
    killed_at,
)

# Two classes of one name, classes of two names, and one of none.
LABELS = [f"a {c} {s}, {s} of {c}" for c in COLOURS[:4] for s in SHAPES]
LABELS += ["a black picture", "a purple picture", "a black picture", ""]


def with_classifier(tiny, folder, labels=LABELS):
    """The tiny image tower with a random classifier, as transformers would save it."""
    shutil.copytree(tiny / "image", folder)
    tensors = load_file(folder / "model.safetensors")
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(len(labels), 64)) * rng.uniform(0.5, 2, 64) + 3
    tensors["classifier.weight"] = rows.astype(np.float32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(i): label for i, label in enumerate(labels)}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.fixture(scope="session")
def tower(tiny, tmp_path_factory):
    return with_classifier(tiny, tmp_path_factory.mktemp("supervised") / "tower")


@pytest.fixture
def config(tiny_config, tower):
    """Training from CCA with the free pairs of the tower."""
    tiny_config.image.tower, tiny_config.image.pooling = tower, "cls+mean"
    tiny_config.image.head.name, tiny_config.text.head.name = "linear", "linear+token_mlp"
    tiny_config.text.head.depth, tiny_config.latent.dropout = 2, 0.2
    tiny_config.start.method = "cca"
    tiny_config.closed.l2, tiny_config.closed.power = 1.0, 1.0
    tiny_config.classifier.weight, tiny_config.classifier.batch = 0.5, 16
    return tiny_config


def prepared(config):
    config = config_lib.resolve(config)
    return run.prepare(config, opened.sources(config), build.load_towers(config), FeatureStore())


def steps_of(made, start, stop):
    """The arrays of free pairs of each step."""
    feed, found = open_feed(made), {}
    blocks = feed.blocks(start, stop)
    for span, block in blocks:
        for i in range(span.start, span.stop):
            own = {k: np.asarray(x[i]) for k, x in block.items() if k.startswith(PREFIX)}
            found[span.first + i] = {k.removeprefix(PREFIX): x for k, x in own.items()}
    blocks.close()
    return found


@pytest.mark.parametrize("standardize", [True, False])
def test_rows_lie_where_the_images_lie(config, standardize):
    config.image.standardize = standardize
    made = prepared(config)
    images = np.asarray(made.dataset.pooled, np.float64)[:, 0]
    whole = np.asarray(load_file(f"{config.image.tower}/model.safetensors")["classifier.weight"])
    expected = whole[:-1] - whole.mean(0)
    expected *= np.sqrt(images.var(0).sum() / whole.var(0).sum())
    np.testing.assert_allclose(made.free.rows, expected + images.mean(0), rtol=1e-3, atol=1e-4)


def test_a_step_is_a_function_of_seed_and_step_and_covers_all_rows(config):
    made = prepared(config)
    found = steps_of(made, 0, 19)
    later = steps_of(made, 7, 8)[7]
    for name, x in found[7].items():
        np.testing.assert_array_equal(later[name], x)
    rows = np.concatenate([found[step]["row_ids"][:, 0] for step in range(19)])
    assert np.bincount(rows).tolist() == [16] * 19  # 19 steps of 16 are 16 epochs of 19 rows.
    for batch in found.values():
        np.testing.assert_array_equal(batch["pooled"], made.free.rows[batch["row_ids"][:, 0]])
        own = batch["text_ids"][:, 1]  # A row comes with a name of its own.
        assert (batch["row_ids"][:, 1:] == own[:, None]).any(axis=1).all()
        lengths = made.free.names.lengths[own]
        np.testing.assert_array_equal(batch["lengths"].reshape(-1), lengths)
    drawn = {step["text_ids"][i, 1] for step in found.values() for i in range(16)}
    assert len(drawn) == len(made.free.names)


def reference(zimg, ztxt, scale, row_names, names):
    """Softmax loss in which a name is no negative of a row whose name it is."""
    logits = scale * np.asarray(zimg, np.float64) @ np.asarray(ztxt, np.float64).T
    for i, own in enumerate(row_names):
        for j, name in enumerate(names):
            if i != j and name in own:
                logits[i, j] = -np.inf
    losses = [scipy.special.logsumexp(logits, axis=k) - np.diag(logits) for k in (0, 1)]
    return np.mean(losses)


@pytest.mark.parametrize("devices", [1, 8])
def test_the_term_is_the_loss_of_rows_with_their_names(config, devices):
    made = prepared(config)
    aligned, free = made.aligned, made.free
    blocks = open_feed(made).blocks(0, 1)
    block = {name: np.asarray(x[0]) for name, x in next(blocks)[1].items()}
    blocks.close()
    mesh = aligned.mesh if devices == 8 else None
    if mesh is not None:
        block = {k: jax.device_put(x, mesh_lib.over_batch(mesh)) for k, x in block.items()}
    trees = [aligned.trainable, {**aligned.frozen}, block]
    if mesh is None:
        one = jax.devices()[0]
        trees = jax.tree.map(lambda x: jax.device_put(np.asarray(x), one), trees)
    block = trees[2]
    args = (aligned.model, from_config(aligned.config.loss), mesh)
    term = align_free.from_config(aligned.config)
    plain = step_lib.contrastive_loss(*args, *trees)[0]
    value, (_, metrics) = step_lib.contrastive_loss(*args, *trees, free=term)
    own = {k.removeprefix(PREFIX): x for k, x in block.items() if k.startswith(PREFIX)}
    model, (heads, frozen, _) = aligned.model, trees
    zimg, ztxt = (
        model.embed(heads, frozen, read(frozen, own))
        for read in (model.image_features, model.text_features)
    )
    scale = float(model.logit_scale(heads, frozen)[0])
    rows, names = np.asarray(own["row_ids"]), np.asarray(own["text_ids"])[:, 1]
    known = [set(free.name_index[free.row_index == row].tolist()) for row in rows[:, 0]]
    expected = reference(zimg, ztxt, scale, known, names)
    assert float(metrics["free_pairs"]) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["contrastive"]) == pytest.approx(float(plain), rel=1e-6)
    assert float(value) == pytest.approx(float(plain) + 0.5 * expected, rel=1e-5)


def test_two_rows_of_one_name_are_no_negatives_of_each_other(config):
    made = prepared(config)
    twins = np.flatnonzero(np.bincount(made.free.name_index) == 2)
    assert len(twins) == 1
    (a, b) = made.free.row_index[made.free.name_index == twins[0]]
    batch = next(
        batch for batch in steps_of(made, 0, 12).values() if {a, b} <= set(batch["row_ids"][:, 0])
    )
    mask = negative_mask(16, batch["row_ids"], batch["text_ids"], 1, None)
    rows, names = batch["row_ids"][:, 0].tolist(), batch["text_ids"][:, 1].tolist()
    assert not mask[rows.index(a), rows.index(b)] and not mask[rows.index(b), rows.index(a)]
    own = [set(made.free.name_index[made.free.row_index == row].tolist()) for row in rows]
    others = [[x != y and n not in some for y, n in zip(rows, names)] for x, some in zip(rows, own)]
    np.testing.assert_array_equal(mask, others)


def test_a_closed_form_is_solved_on_pairs_and_free_pairs(config, tmp_path):
    config.start.method, config.method, config.embed = "none", "cca", 8
    config.latent.dropout, config.classifier.batch = 0.0, 256
    made = prepared(config)
    statistics = made.aligned.frozen["statistics"]
    paired = solve._paired("mean", made.dataset, statistics)
    fit = cca(appended(paired, made.free.pooled("mean"), 0.5), 1.0, dim=8, power=1.0)
    alone = cca(paired, 1.0, dim=8, power=1.0)
    found = np.asarray(made.aligned.trainable["text_head"]["projection"]["kernel"])

    def apart(kernel):
        ratio = np.linalg.norm(found) / np.linalg.norm(kernel)
        return np.abs(found - ratio * kernel).max()

    assert apart(fit.text.kernel) < 1e-5 < 100 * apart(alone.text.kernel)
    summary = loop.train_and_evaluate(config_lib.resolve(config), tmp_path / "run")
    assert summary["closed_form"]["free_weight"] == 0.5
    assert summary["closed_form"]["free_pairs"] == len(made.free.row_index)
    assert "classifier" in summary["digests"]


@pytest.fixture(scope="module")
def trained(new_tiny_config, tower, features, tmp_path_factory):
    """The folder of a run of four steps whose names come from a file beside it."""
    folder = tmp_path_factory.mktemp("free")
    (folder / "names.txt").write_text("\n".join(LABELS) + "\n")
    config = new_tiny_config()
    config.image.tower, config.image.pooling = tower, "cls+mean"
    config.cache.dir, config.train.steps = str(features), 4
    config.text.head.depth, config.embed, config.image.head.name = 2, 16, "linear"
    config.classifier.weight, config.classifier.batch = 0.5, 16
    config.classifier.names = str(folder / "names.txt")
    return config, folder, loop.train_and_evaluate(config_lib.resolve(config), folder / "run")


def test_a_run_trains_on_free_pairs_and_its_model_needs_none(trained):
    _, folder, summary = trained
    lines = map(json.loads, (folder / "run/metrics.jsonl").read_text().splitlines())
    (last,) = [line for line in lines if line["step"] == 4 and "train/loss" in line]
    total = last["train/contrastive"] + 0.5 * last["train/free_pairs"]
    assert last["train/loss"] == pytest.approx(total, rel=1e-5)
    aligned = restore(folder / "run")
    assert aligned.meta["free pairs"]["digest"] == summary["digests"]["classifier"]


def test_other_names_do_not_resume(trained, tmp_path):
    config, folder, _ = trained
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy/run/summary.json").unlink()
    file = folder / "names.txt"
    before = file.read_text()
    try:
        file.write_text(before.replace("a red square", "a red bar"))
        with pytest.raises(UserError, match="free pairs"):
            loop.train_and_evaluate(config_lib.resolve(config), tmp_path / "copy/run")
    finally:
        file.write_text(before)


@pytest.mark.slow
def test_killed_and_resumed_ends_with_the_same_bits(config, tmp_path, killed_at):  # noqa: F811
    config = config_lib.resolve(config)
    loop.train_and_evaluate(config, tmp_path / "whole")
    heal = killed_at(6)
    with pytest.raises(Killed):
        loop.train_and_evaluate(config, tmp_path / "cut")
    heal()
    loop.train_and_evaluate(config, tmp_path / "cut")
    folders = (tmp_path / "whole", tmp_path / "cut")
    assert_same_bits(*(final_parameters(folder) for folder in folders))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"image.pooling": "own"}, "image.pooling: .*read 'cls.mean', found 'own', which is 'cls'"),
        ({"image.pooling": "mean"}, "image.pooling: .*write 'cls.mean'"),
        ({"classifier.batch": 64}, "classifier.batch: 64 is more than the 19 classes"),
        ({"classifier.batch": 12}, "classifier.batch: 12 does not divide .*write 16"),
        ({"classifier.names": "/nowhere.txt"}, "classifier.names: there is no file"),
    ],
)
def test_what_the_tower_does_not_serve_is_refused(config, changes, words):
    config = config_lib.resolve(config).replace(changes)
    with pytest.raises(UserError, match=rf"config\.{words}"):
        run.prepare(config, opened.sources(config), build.load_towers(config), FeatureStore())


def test_a_tower_without_a_classifier_is_refused(config, tiny):
    config.image.tower = str(tiny / "image")
    with pytest.raises(UserError, match="holds no classifier"):
        opened.sources(config_lib.resolve(config))


def test_a_plan_says_that_it_does_not_count_them(config):
    with pytest.raises(UserError, match=r"config\.classifier\.weight: a plan"):
        estimate.assemble(config_lib.resolve(config), slices.parse("v5e:2x2"))
