"""The real loop on a tiny world: it learns, resumes with the same bits and stops at NaN."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from ape_jax import config as config_lib
from ape_jax.align.losses.chunks import embed_in_chunks
from ape_jax.errors import Preempted, UserError
from ape_jax.runs.directory import claim
from ape_jax.training import loop
from ape_jax.training import step as step_lib
from tests import tiny_world


class Killed(BaseException):
    """Not an Exception: nothing may catch it and tidy up."""


@pytest.fixture
def killed_at(blocks_through):
    """Makes the loop die when it asks for the block with the step of that number."""

    def arm(step):
        def until(blocks):
            for span, block in blocks:
                if step <= span.first + span.stop:
                    raise Killed
                yield span, block

        return blocks_through(until)

    return arm


def final_parameters(workdir, item="trainable"):
    step = max(int(p.name) for p in (workdir / "checkpoints").iterdir())
    with ocp.StandardCheckpointer() as checkpointer:
        arrays = checkpointer.restore((workdir / "checkpoints" / str(step) / item).absolute())
    return step, jax.tree.map(np.asarray, arrays)


def assert_same_bits(a, b):
    assert a[0] == b[0]
    jax.tree.map(np.testing.assert_array_equal, a[1], b[1])


@pytest.fixture(scope="module")
def learned(new_tiny_config, tmp_path_factory):
    """The config, work directory and summary of a run to its end, which nobody changes."""
    config, path = new_tiny_config(), tmp_path_factory.mktemp("learned")
    config.train.steps, config.optim.lr = 60, 3e-3
    config = config_lib.resolve(config)
    return config, path, loop.train_and_evaluate(config, path)


def test_loss_falls_and_every_figure_is_written(learned):
    _, path, summary = learned
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert losses[-1] < 0.7 * losses[0]
    assert summary["eval/train/i2t_r1"] > 3 / 24
    assert json.loads((path / "summary.json").read_text()) == summary
    assert list((path / "tensorboard").iterdir())


@pytest.mark.slow
def test_trained_towers_with_all_savings_resume_with_the_same_bits(
    tiny_config, tmp_path, killed_at
):
    tiny_config.image.tune = tiny_config.text.tune = "full"
    tiny_config.image.standardize = False
    tiny_config.train.micro_batch, tiny_config.train.remat = 8, "all_but_products"
    tiny_config.optim.ema = 0.9
    config = config_lib.resolve(tiny_config)
    whole = loop.train_and_evaluate(config, tmp_path / "whole")
    forget = killed_at(config.train.steps // 2 + 1)
    with pytest.raises(Killed):
        loop.train_and_evaluate(config, tmp_path / "killed")
    forget()
    resumed = loop.train_and_evaluate(config, tmp_path / "killed")
    for item in ("trainable", "average"):
        assert_same_bits(*(final_parameters(tmp_path / name, item) for name in ("whole", "killed")))
    figures = {key for key in whole if key.startswith("eval/")}
    assert {key: whole[key] for key in figures} == {key: resumed[key] for key in figures}


@pytest.mark.parametrize(
    ("views", "place", "calls"),
    [
        (0, "host", 0),
        (3, "device", 3),
        pytest.param(3, "host", 1, marks=pytest.mark.slow),
        pytest.param(3, "disk", 1, marks=pytest.mark.slow),
    ],
)
def test_killed_at_any_step_and_resumed_ends_with_the_same_bits(
    tiny_config, tmp_path, killed_at, views, place, calls
):
    tiny_config.cache.views, tiny_config.cache.place = views, place
    tiny_config.train.steps_per_call = calls
    tiny_config.augment.crop, tiny_config.augment.flip = (0.5, 1.0), True
    tiny_config.text.head.dropout, tiny_config.latent.noise = 0.2, 0.1
    config = config_lib.resolve(tiny_config)
    loop.train_and_evaluate(config, tmp_path / "whole")
    for step in (2, 6):
        heal = killed_at(step)
        with pytest.raises(Killed):
            loop.train_and_evaluate(config, tmp_path / "cut")
        heal()
    loop.train_and_evaluate(config, tmp_path / "cut")
    assert_same_bits(final_parameters(tmp_path / "whole"), final_parameters(tmp_path / "cut"))
    whole, cut = ((tmp_path / d / "metrics.jsonl").read_text() for d in ("whole", "cut"))
    assert whole == cut


def test_a_mixture_with_weights_resumes_with_the_same_bits(tiny_config, tiny, tmp_path, killed_at):
    lines = (tiny / "pairs.jsonl").read_text().replace('"image": "', f'"image": "{tiny}/')
    halves = [tmp_path / f"{name}.jsonl" for name in "ab"]
    for half, some in zip(halves, (lines.splitlines()[:8], lines.splitlines()[8:])):
        half.write_text("\n".join(some))
    tiny_config.data.pairs = {str(halves[0]): 2.5, str(halves[1]): 1}
    config = config_lib.resolve(tiny_config)
    loop.train_and_evaluate(config, tmp_path / "whole")
    heal = killed_at(6)
    with pytest.raises(Killed):
        loop.train_and_evaluate(config, tmp_path / "cut")
    heal()
    loop.train_and_evaluate(config, tmp_path / "cut")
    assert_same_bits(final_parameters(tmp_path / "whole"), final_parameters(tmp_path / "cut"))


@pytest.mark.parametrize(("calls", "every"), [(8, 7), pytest.param(64, 3, marks=pytest.mark.slow)])
def test_steps_a_call_and_periods_change_nothing(tiny_config, tmp_path, calls, every):
    tiny_config.text.head.dropout, tiny_config.latent.dropout = 0.2, 0.1
    tiny_config.train.steps = 20
    tiny_config.train.log_every, tiny_config.train.checkpoint_every = 1, 0
    seen = []
    for pair in ((1, 0), (calls, every)):
        tiny_config.train.steps_per_call, tiny_config.train.checkpoint_every = pair
        workdir = tmp_path / f"{pair[0]}"
        loop.train_and_evaluate(config_lib.resolve(tiny_config), workdir)
        seen.append((final_parameters(workdir), (workdir / "metrics.jsonl").read_text()))
    (one, lines), (several, their_lines) = seen
    assert_same_bits(several, one)
    assert their_lines == lines


def test_a_token_head_in_parts_trains_as_on_the_whole_batch(tiny_config, tmp_path, monkeypatch):
    tiny_config.train.steps, tiny_config.train.log_every = 4, 1
    tiny_config.data.eval = {}
    parts = []

    def embed(embed, features, rng, chunks, mesh):
        parts.append(chunks)
        return embed_in_chunks(embed, features, rng, chunks, mesh)

    monkeypatch.setattr(step_lib, "embed_in_chunks", embed)

    def losses(micro):
        tiny_config.train.micro_batch = micro
        path = tmp_path / str(micro)
        loop.train_and_evaluate(config_lib.resolve(tiny_config), path)
        lines = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
        return [line["train/loss"] for line in lines if "train/loss" in line]

    whole = losses(0)
    assert len(whole) == 4
    assert set(parts) == {1}
    parts.clear()
    np.testing.assert_allclose(losses(8), whole, rtol=1e-5)
    assert set(parts) == {2}


@pytest.mark.slow  # tests/test_faults.py kills the command as well.
def test_kill_9_of_the_command_resumes_with_the_same_bits(tiny_config, tmp_path):
    tiny_config.train.steps, tiny_config.train.checkpoint_every = 30, 5
    path = tiny_world.write_config(tiny_config, tmp_path)

    def start(workdir):
        command = [sys.executable, "-m", "ape_jax.main", f"--config={path}"]
        return subprocess.Popen([*command, f"--workdir={workdir}"], env=os.environ)

    cut = tmp_path / "cut"
    process = start(cut)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if (cut / "checkpoints" / "5").exists():
            process.send_signal(signal.SIGKILL)
        time.sleep(0.005)
    assert process.wait(10) == -signal.SIGKILL
    assert start(cut).wait(240) == 0
    loop.train_and_evaluate(config_lib.resolve(tiny_config), tmp_path / "whole")
    assert_same_bits(final_parameters(tmp_path / "whole"), final_parameters(cut))


def test_sigterm_saves_ends_with_zero_and_resumes_with_the_same_bits(
    tiny_config, tmp_path, blocks_through
):
    """Sent to this very process, while it trains."""
    tiny_config.train.steps_per_call, tiny_config.train.checkpoint_every = 1, 0
    tiny_config.text.head.dropout = 0.2
    config = config_lib.resolve(tiny_config)
    loop.train_and_evaluate(config, tmp_path / "whole")
    before = signal.getsignal(signal.SIGTERM)

    def terminated(blocks):
        for span, block in blocks:
            if span.first + span.stop == 4:  # Blocks have two steps.
                os.kill(os.getpid(), signal.SIGTERM)
            yield span, block

    heal = blocks_through(terminated)
    with pytest.raises(Preempted, match=r"step \d of 8 is saved in .*; the same command goes on"):
        loop.train_and_evaluate(config, tmp_path / "cut")
    heal()
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (tmp_path / "cut/summary.json").exists()
    loop.train_and_evaluate(config, tmp_path / "cut")
    assert_same_bits(final_parameters(tmp_path / "whole"), final_parameters(tmp_path / "cut"))


def test_finished_run_is_not_trained_again(learned, monkeypatch):
    config, path, first = learned
    monkeypatch.setattr(loop.run_lib, "prepare", None)
    assert loop.train_and_evaluate(config, path) == first


def test_summary_that_was_cut_off_is_made_without_training(learned, tmp_path):
    config, path, first = learned
    before = (path / "metrics.jsonl").read_text()
    cut = tmp_path / "cut"
    shutil.copytree(path, cut)
    (cut / "summary.json").unlink()
    again = loop.train_and_evaluate(config, cut)
    drop = {"seconds_last_start"}
    assert {k: first[k] for k in first.keys() - drop} == {k: again[k] for k in again.keys() - drop}
    assert (cut / "metrics.jsonl").read_text() == before


def test_loss_that_is_not_finite_stops_the_run_and_names_the_checkpoint(
    tiny_config, tmp_path, blocks_through
):
    def poisoned(blocks):
        for span, block in blocks:
            steps = span.first + np.arange(1, len(block["pooled"]) + 1)
            poison = np.where(steps == 6, np.nan, 1).astype(np.float32)[:, None, None]
            yield span, {**block, "pooled": block["pooled"] * poison}

    tiny_config.train.steps_per_call = 8
    blocks_through(poisoned)
    with pytest.raises(UserError, match=r"loss is nan .* at step 6; the last good .* step 4;"):
        loop.train_and_evaluate(config_lib.resolve(tiny_config), tmp_path)
    assert not (tmp_path / "summary.json").exists()
    assert (tmp_path / "checkpoints/4").exists() and not (tmp_path / "checkpoints/8").exists()


def test_batch_that_does_not_divide_over_the_devices_names_one_that_does(tiny_config, tmp_path):
    tiny_config.train.batch = 12
    with pytest.raises(UserError, match=r"train.batch: 12 .* 8 devices; write 16"):
        loop.train_and_evaluate(config_lib.resolve(tiny_config), tmp_path)


def test_other_pairs_under_the_same_name_are_refused(tiny_config, tiny, tmp_path, killed_at):
    pairs = tmp_path / "pairs.jsonl"
    text = (tiny / "pairs.jsonl").read_text().replace('"image": "', f'"image": "{tiny}/')
    pairs.write_text(text)
    tiny_config.data.pairs = str(pairs)
    config = config_lib.resolve(tiny_config)
    heal = killed_at(6)
    with pytest.raises(Killed):
        loop.train_and_evaluate(config, tmp_path / "run")
    heal()
    pairs.write_text(text.replace("a red square", "the red square"))
    with pytest.raises(UserError, match="another pairs"):
        loop.train_and_evaluate(config, tmp_path / "run")


MISTAKES = {  # What a start can fail on once its directory is claimed.
    "no such tower": {"image.tower": "no/such"},
    "no such layer": {"image.layer": 99},
    "rule that matches nothing": {"optim.lr_mults": (("no_such/.*", 2.0),)},
    "broken picture": {"data.pairs": "broken.jsonl"},
    "no room for features": {"cache.dir": "a file"},
}


def test_after_any_mistake_the_mended_command_runs_in_the_same_directory(
    tiny_config, tiny, tmp_path
):
    (tmp_path / "a file").touch()
    (tmp_path / "broken.png").write_bytes(b"no picture")
    lines = (tiny / "pairs.jsonl").read_text().replace('"image": "', f'"image": "{tiny}/')
    (tmp_path / "broken.jsonl").write_text('{"image": "broken.png", "caption": "a"}\n' + lines)
    good = config_lib.flatten(config_lib.resolve(tiny_config))
    for mistake in MISTAKES.values():
        values = {
            key: str(tmp_path / value) if key in ("data.pairs", "cache.dir") else value
            for key, value in mistake.items()
        }
        config = config_lib.resolve(config_lib.unflatten({**good, **values}))
        with pytest.raises(UserError):
            loop.train_and_evaluate(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()
    loop.train_and_evaluate(config_lib.resolve(tiny_config), tmp_path / "run")


def test_a_mistake_before_training_leaves_the_directory_to_the_next_config(tiny_config, tmp_path):
    tiny_config.image.tower = "no/such"
    config = config_lib.resolve(tiny_config)
    with claim.claimed(tmp_path / "taken", config):  # What an earlier start has left stays.
        pass
    for name, is_left in (("fresh", False), ("taken", True)):
        with pytest.raises(UserError, match=r"image\.tower: .*no/such"):
            loop.train_and_evaluate(config, tmp_path / name)
        assert (tmp_path / name / "config.json").exists() == is_left
