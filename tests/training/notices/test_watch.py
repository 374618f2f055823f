"""Signs that nothing is learned, in the metrics of steps; a healthy start shows none."""

import math

import pytest

from ape_jax import config as config_lib
from ape_jax.training.notices.watch import Watch, uninformed

GUESS = math.log(32)
HEALTHY = {"loss": 2.0, "grad_norm": 1.0, "update_norm": 0.1, "scale": 14.0, "lr": 1e-3}
HEALTHY |= {"image_spread": 0.5, "text_spread": 0.3}


def config(**keys):
    made = config_lib.default()
    made.image.tower = made.text.tower = "features:4"
    made.data.pairs = "features:x.npz"
    made.train.batch, made.train.steps, made.optim.warmup = 32, 400, 10
    return config_lib.resolve({**config_lib.flatten(made), **keys})


def kinds(steps, lines=(), **keys):
    """The kinds of all notices, in their order, of the metrics at the steps from 1 on."""
    watch = Watch(config(**keys), lines)
    found = [notice for k, step in enumerate(steps, 1) for notice in watch.see(k, HEALTHY | step)]
    for notice in found:
        assert notice.message.startswith(f"step {notice.step}: ")
        assert "\n" not in notice.message and not notice.message.endswith(".")
    return [notice.kind for notice in found]


def falling(count, start=GUESS + 0.3, to=1.0):
    return [{"loss": start + (to - start) * k / count} for k in range(count)]


RUNS = {
    "images that are all alike": ([{"image_spread": 0.0}] * 9, {}, ["image collapse"]),
    "captions that become alike": (
        falling(50) + [{"text_spread": 1e-9}] * 9, {}, ["text collapse"]),
    "exactly ln B": ([{"loss": GUESS + 1e-6}] * 399, {}, ["loss of guessing"]),
    "exactly ln B of groups": ([{"loss": math.log(8)}] * 20,
        {"loss.negatives": "local", "loss.local_groups": 4}, ["loss of guessing"]),
    "exactly ln B of mixed pairs": (
        [{"loss": math.log(16)}] * 20, {"latent.mixup": 1.0}, ["loss of guessing"]),
    "never below ln B": ([{"loss": GUESS + 0.5}] * 399, {}, ["nothing learned"]),
    "a short run never below ln B": (
        [{"loss": GUESS + 0.5}] * 40, {"train.steps": 40}, ["nothing learned"]),
    "never below ln B, whatever is added to the loss": (
        [{"loss": 9.0, "contrastive": GUESS + 0.5}] * 399, {}, ["nothing learned"]),
    "learned and lost": (
        [*falling(60), *[{"loss": GUESS + 0.1}] * 60], {}, ["learned and lost"]),
    "the scale at its bound": ([{"scale": 100.0}] * 150, {}, ["scale at its bound"]),
    "a scale that falls": ([{"scale": 14 * 0.8**k} for k in range(40)], {}, ["scale near zero"]),
    "no gradient": ([{"grad_norm": 0.0}] * 20, {}, ["no gradient"]),
    "a gradient that explodes": ([{}] * 30 + [{"grad_norm": 1e6}] * 9, {}, ["gradient explodes"]),
    "all of it": (
        [{"loss": GUESS, "grad_norm": 0.0, "image_spread": 0.0, "text_spread": 0.0, "scale": 0.0}]
        * 150, {}, ["image collapse", "text collapse", "scale near zero", "loss of guessing",
                    "no gradient"]),
    # Nothing is said of these.
    "healthy": (falling(400), {}, []),
    "healthy under a term that is added": (
        [{"loss": 9.0, "contrastive": step["loss"]} for step in falling(400)], {}, []),
    "a plateau of a hundred steps": (
        [{"loss": GUESS * (1 + 0.004 * math.sin(k))} for k in range(105)] + falling(200), {}, []),
    "near ln B by chance": ([{"loss": GUESS}] * 5 + falling(100), {}, []),
    "a rate of zero at first": ([{"loss": GUESS, "lr": 0.0}] * 50 + falling(100), {}, []),
    "fitted at once": ([{"loss": 1e-5, "grad_norm": 1e-12}] * 300, {}, []),
    "spikes": (([{}] * 9 + [{"grad_norm": 900.0, "loss": 9.0}]) * 20, {}, []),
    "a scale that sinks a little": ([{"scale": 14 - k / 100} for k in range(399)], {}, []),
    "a scale that reaches its bound late": (
        [*falling(390), *[{"scale": 100.0}] * 10], {}, []),
    "a scale that begins at its bound": (
        [{"scale": 50.0}] * 300, {"loss.scale": 50.0, "loss.scale_max": 50.0}, []),
    "a fixed scale": ([{"scale": 1e-3}] * 300, {"loss.learn_scale": False}, []),
    "a loss without such a mark": ([{"loss": GUESS}] * 300, {"loss.name": "sigmoid"}, []),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_run_shows(name):
    steps, keys, expected = RUNS[name]
    assert kinds(steps, **keys) == expected


def test_what_an_earlier_start_has_learned_counts():
    steps = [{"loss": GUESS + 0.5}] * 230
    assert kinds(steps) == ["nothing learned"]
    assert kinds(steps, [{"step": 5, "train/loss": 1.0}]) == ["learned and lost"]
    assert kinds(steps, [{"step": 5, "eval/x": 1.0}]) == ["nothing learned"]


def test_the_mark_is_that_of_the_loss():
    assert uninformed(config()) == pytest.approx(GUESS)
    assert uninformed(config(**{"loss.name": "sigmoid"})) is None
