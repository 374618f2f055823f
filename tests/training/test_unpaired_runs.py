"""Training with unpaired images and texts: the term, the feed, the teacher, and resuming."""

import json
import shutil

import jax
import numpy as np
import pytest
import scipy.special

from ape_jax import config as config_lib
from ape_jax.align.losses.objective import from_config
from ape_jax.align.unpaired import PREFIX, TEACHER
from ape_jax.align.unpaired import from_config as term_of
from ape_jax.errors import UserError
from ape_jax.runs.restore import restore
from ape_jax.training import loop
from ape_jax.training import step as step_lib
from ape_jax.training.input.feed import open_feed
from tests.training.test_loop import (  # noqa: F401
    Killed,
    assert_same_bits,
    final_parameters,
    killed_at,
)
from tests.training.test_unpaired import made_of, prepared


@pytest.fixture
def config(tiny_config, tiny, tmp_path):
    """A config of half of the tiny pairs, with all drawings and texts beside."""
    return made_of(tiny_config, tiny, tmp_path)


@pytest.fixture(scope="module")
def trained(new_tiny_config, tiny, features, tmp_path_factory):
    """The config, folder and summary of a run of four steps, in `folder / "run"`."""
    folder = tmp_path_factory.mktemp("unpaired")
    config = made_of(new_tiny_config(), tiny, folder)
    config.cache.dir, config.train.steps = str(features), 4
    return config, folder, loop.train_and_evaluate(config_lib.resolve(config), folder / "run")


def test_a_run_reports_klot_and_its_summary_names_the_data(trained):
    _, folder, summary = trained
    assert {"images", "texts", "train"} <= set(summary["digests"])
    lines = map(json.loads, (folder / "run/metrics.jsonl").read_text().splitlines())
    klot = [line["train/klot"] for line in lines if "train/klot" in line]
    assert len(klot) == 2 and min(klot) > 0
    assert TEACHER not in restore(folder / "run").frozen


@pytest.mark.slow
def test_killed_and_resumed_ends_with_the_same_bits(config, tmp_path, killed_at):  # noqa: F811
    config = config_lib.resolve(config)
    loop.train_and_evaluate(config, tmp_path / "whole")
    heal = killed_at(6)
    with pytest.raises(Killed):
        loop.train_and_evaluate(config, tmp_path / "cut")
    heal()
    loop.train_and_evaluate(config, tmp_path / "cut")
    for item in ("trainable", TEACHER):
        assert_same_bits(*(final_parameters(tmp_path / name, item) for name in ("whole", "cut")))


def test_the_teacher_of_a_checkpoint_is_what_was_solved(trained):
    config, folder, _ = trained
    _, teacher = final_parameters(folder / "run", TEACHER)
    solved = prepared(config).aligned.frozen[TEACHER]
    jax.tree.map(np.testing.assert_array_equal, teacher, jax.tree.map(np.asarray, dict(solved)))


def test_other_unpaired_texts_do_not_resume(trained, tmp_path):
    config, folder, _ = trained
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy/run/summary.json").unlink()
    texts = folder / "texts.txt"
    before = texts.read_text()
    try:
        texts.write_text(before + "\na red picture")
        with pytest.raises(UserError, match="unpaired texts"):
            loop.train_and_evaluate(config_lib.resolve(config), tmp_path / "copy/run")
    finally:
        texts.write_text(before)


def test_a_batch_is_a_function_of_seed_and_step_and_covers_all(config):
    made = prepared(config)
    feed = open_feed(made)
    blocks = feed.blocks(0, 6)
    found = {}
    for span, block in blocks:
        for step in range(span.start, span.stop):
            found[span.first + step] = {
                name: np.asarray(x[step], np.float32)
                for name, x in block.items()
                if name.startswith(PREFIX)
            }
    blocks.close()
    later = feed.blocks(4, 6)
    span, block = next(later)
    later.close()
    for name, x in found[4].items():
        np.testing.assert_array_equal(np.asarray(block[name][span.start], np.float32), x)
    # 3 steps of 16 are each of the 48 texts once, and each of the 24 images twice.
    images = np.concatenate([found[step][PREFIX + "pooled"] for step in range(3)])
    assert sorted(np.unique(images, axis=0, return_counts=True)[1]) == [2] * 24
    lengths = np.concatenate([found[s][PREFIX + "lengths"].ravel() for s in range(3)])
    assert sorted(lengths) == sorted(made.unpaired.texts.lengths)


def test_the_term_is_klot_of_both_models_cosines(config):
    """The loss with the term, less that without, is NumPy's KLOT of the embeddings."""
    made = prepared(config)
    aligned, teacher = made.aligned, made.teacher
    feed = open_feed(made)
    blocks = feed.blocks(0, 1)
    block = {name: x[0] for name, x in next(blocks)[1].items()}
    blocks.close()
    term = term_of(aligned.config.unpaired, teacher, None)
    args = (aligned.model, from_config(aligned.config.loss), aligned.mesh)
    trees = (aligned.trainable, aligned.frozen, block)
    # Heads that have moved away from the teacher's.
    moved = jax.tree.map(lambda x: x + 0.02 * np.sin(np.arange(x.size)).reshape(x.shape), trees[0])
    trees = (moved, *trees[1:])
    plain = step_lib.contrastive_loss(*args, *trees)[0]
    value, (_, metrics) = step_lib.contrastive_loss(*args, *trees, unpaired=term)
    unpaired = {k.removeprefix(PREFIX): x for k, x in block.items() if k.startswith(PREFIX)}

    def cosines(model, heads):
        image = model.image_features(aligned.frozen, unpaired)
        text = model.text_features(aligned.frozen, unpaired)
        z = [model.embed(heads, aligned.frozen, x) for x in (image, text)]
        return np.asarray(z[0], np.float64) @ np.asarray(z[1], np.float64).T

    def plan(s, eps):
        u, v = np.zeros(len(s)), np.zeros(s.shape[1])
        for _ in range(100):
            u = -np.log(len(s)) - scipy.special.logsumexp(s / eps + v, axis=1)
            v = -np.log(s.shape[1]) - scipy.special.logsumexp(s / eps + u[:, None], axis=0)
        more = -np.log(len(s)) - scipy.special.logsumexp(s / eps + v, axis=1)
        down = -np.log(s.shape[1]) - scipy.special.logsumexp(s / eps + u[:, None], axis=0)
        return s / eps + ((u + more) / 2)[:, None] + (v + down) / 2

    wanted = plan(cosines(teacher, aligned.frozen[TEACHER]), 0.005)
    ours = plan(cosines(aligned.model, moved), 0.05)
    expected = (np.exp(wanted) * (wanted - ours)).sum()
    assert float(metrics["klot"]) == pytest.approx(expected, rel=1e-3)
    assert float(value) == pytest.approx(float(plain) + 0.5 * expected, rel=1e-3)


def test_the_structure_term_is_taken_of_unpaired_data(config, tmp_path):
    config.unpaired.klot, config.unpaired.structure = 0.0, True
    config.structure.weight, config.structure.ramp = 0.5, 0
    config.train.steps = 4
    loop.train_and_evaluate(config_lib.resolve(config), tmp_path / "run")
    lines = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    (last,) = [line for line in lines if line["step"] == 4 and "train/loss" in line]
    parts = {name: last[f"train/{name}"] for name in ("contrastive", "structure")}
    both = parts["structure"] + last["train/unpaired_structure"]
    assert last["train/loss"] == pytest.approx(parts["contrastive"] + 0.5 * both, rel=1e-5)
    assert last["train/unpaired_structure"] > 0 and "train/klot" not in last
