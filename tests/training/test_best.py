"""`eval.keep='best'`, `data.split` and settings that follow from the data, in real runs."""

import json
import shutil

import jax
import numpy as np
import pytest

from ape_jax import config as config_lib
from ape_jax.config import automatic
from ape_jax.data.specs import open_pairs
from ape_jax.runs.restore import restore
from ape_jax.training import loop

SCORES = {2: 0.1, 4: 0.7, 6: 0.7, 8: 0.3}


@pytest.fixture(scope="module")
def config(new_tiny_config):
    flat = config_lib.flatten(new_tiny_config())
    return config_lib.resolve(
        {
            **flat,
            "data.eval": {},
            "data.split": 0.25,
            "eval.keep": "best",
            "train.batch": 8,
            "train.eval_every": 2,
        }
    )


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """A run whose evaluations are scripted: the best is that of step 4."""
    path, evaluate = tmp_path_factory.mktemp("best") / "run", loop.Loop._evaluate

    def scripted(self, step):
        return {name: SCORES[step] for name in evaluate(self, step)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Loop, "_evaluate", scripted)
        summary = loop.train_and_evaluate(config, path)
        cut = path.with_name("cut")  # Killed after step 4, of which the best is known already.
        shutil.copytree(path, cut)
        shutil.rmtree(cut / "checkpoints/8")
        (cut / "summary.json").unlink()
        again = loop.train_and_evaluate(config, cut)
    return path, summary, cut, again


def test_the_best_state_is_what_is_used_and_its_figures_are_reported(run):
    path, summary, *_ = run
    assert (summary["step"], summary["best_step"]) == (8, 4)
    assert summary["eval/held-out/i2t_r1"] == 0.7
    best = restore(path)
    assert best.step == 4
    last = restore(path, {"eval.keep": "last"})
    assert last.step == 8
    differ = jax.tree.map(
        lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()),
        *((m.trainable) for m in (best, last)),
    )
    assert any(jax.tree.leaves(differ))


def test_a_run_that_is_resumed_ends_with_the_same_best(run):
    path, summary, cut, again = run
    ours, theirs = ({k: v for k, v in s.items() if "seconds" not in k} for s in (summary, again))
    assert ours == theirs
    for x, y in zip(*(jax.tree.leaves(restore(p).trainable) for p in (path, cut)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_the_held_out_images_are_pairs_like_others(run):
    recorded = json.loads((run[0] / "config.json").read_text())
    held, rest = open_pairs(recorded["data.eval"]["held-out"]), open_pairs(recorded["data.pairs"])
    assert (len(held), len(rest), run[1]["pairs"]) == (6, 18, 18)


def test_what_is_left_open_is_settled_said_and_recorded(new_tiny_config, tmp_path, capsys):
    flat = config_lib.flatten(new_tiny_config())
    keys = (
        "train.batch",
        "train.log_every",
        "train.checkpoint_every",
        "optim.warmup",
        "image.size",
    )
    config = config_lib.resolve({**flat, **dict.fromkeys(keys, automatic.AUTO), "train.steps": 20})
    loop.train_and_evaluate(config, tmp_path)
    assert "24 pairs: batch 16, the tower's own size" in capsys.readouterr().err
    recorded = json.loads((tmp_path / "config.json").read_text())
    assert [recorded[key] for key in keys] == [16, 1, 2, 2, 0]
    (tmp_path / "summary.json").unlink()
    assert loop.train_and_evaluate(config, tmp_path)["step"] == 20  # The same data settle it alike.
