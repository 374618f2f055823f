"""The number of steps that held-out folds choose (`train.folds`), in real runs."""

import itertools
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import ape_jax
from ape_jax import config as config_lib
from ape_jax.data.options import Reading
from ape_jax.data.specs import open_pairs
from ape_jax.errors import Preempted, UserError
from ape_jax.features.dataset import Dataset, FeatureStore, captions_of
from ape_jax.runs import build
from ape_jax.runs.directory import folds_record
from ape_jax.runs.restore import restore
from ape_jax.training import loop
from ape_jax.training import run as run_lib
from ape_jax.training.folds import choice, settle
from ape_jax.training.folds import split as split_lib
from ape_jax.training.input import opened
from tests.parallel.test_peers import ends
from tests.runs.checkpoints.test_agreed import COMMAND, started

PEAK = {2: 0.2, 4: 0.6, 6: 0.5, 8: 0.3}  # By step.


class Killed(BaseException):
    """Not an Exception: nothing may catch it and tidy up."""


@pytest.fixture(autouse=True)
def few_are_enough(monkeypatch):
    monkeypatch.setattr(split_lib, "LEAST", 4)
    monkeypatch.setattr(choice, "MOST_POINTS", 4)


@pytest.fixture
def flat(tiny_config):
    return settings(tiny_config)


@pytest.fixture
def starting(flat):
    """The same, starting from CCA."""
    heads = {"text.head.name": "linear", "image.head.name": "linear"}
    own = {f"text.head.{key}" for key in ("depth", "width", "dropout")}
    kept = {key: value for key, value in flat.items() if key not in own}
    return {**kept, **heads, "start.method": "cca"}


@pytest.fixture
def scripted(monkeypatch):
    """Takes the figures of folds from a table by step, the same for each fold up to a little."""

    def arm(table):
        steps, calls = list(table), []

        def recall(*_):
            calls.append(1)
            turn, at = divmod(len(calls) - 1, len(steps))
            return table[steps[at]] * (1 + turn / 100)

        monkeypatch.setattr(settle, "_recall", recall)

    return arm


@pytest.fixture(scope="module")
def whole(new_tiny_config, tmp_path_factory):
    """The settings, work directory and summary of a run on folds, which nobody changes."""
    path, config = tmp_path_factory.mktemp("whole") / "run", new_tiny_config()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split_lib, "LEAST", 4)
        patch.setattr(choice, "MOST_POINTS", 4)
        flat = settings(config)
        return flat, path, run_of(flat, path)


def settings(config):
    config.train.batch, config.data.eval = 8, {}
    config.text.head.dropout, config.text.head.depth = 0.1, 1
    return {**config_lib.flatten(config), "train.folds": 3, "optim.warmup": 4}


def run_of(flat, path, **changes):
    config = config_lib.resolve(config_lib.unflatten({**flat, **changes}))
    return loop.train_and_evaluate(config, path)


def record_of(path):
    return json.loads((path / "folds.json").read_text())


def assert_same_bits(a, b):
    x, y = restore(a), restore(b)
    assert x.step == y.step
    jax.tree.map(np.testing.assert_array_equal, x.trainable, y.trainable)


def by_hand(steps, curves):
    """The fewest steps whose mean distance to the best is at most its standard error."""
    relative = np.array([np.array(curve) / np.mean(curve) for curve in curves])
    best = relative.mean(0).argmax()
    for at, step in enumerate(steps):
        short = relative[:, best] - relative[:, at]
        if short.mean() <= np.sqrt(np.var(short, ddof=1) / len(short)):
            return step
    raise AssertionError


def test_the_fewest_steps_within_one_standard_error(rng):
    steps = [0, 5, 10, 15, 20]
    found = set()
    for _ in range(50):
        curves = np.array([0.1, 0.28, 0.3, 0.31, 0.25]) + rng.normal(0, 0.02, (5, 5))
        chosen = choice.choose(steps, curves.tolist())
        assert chosen.chosen == by_hand(steps, curves)
        np.testing.assert_allclose(chosen.mean, curves.mean(0))
        found.add(chosen.chosen)
    assert len(found) > 1


def test_a_step_that_is_clearly_better_is_taken():
    curves = [[0.1, 0.2, 0.30], [0.1, 0.2, 0.31], [0.1, 0.2, 0.32]]
    assert choice.choose([10, 20, 30], curves).chosen == 30


@pytest.mark.parametrize("steps", [1, 3, 4, 7, 90])
def test_points_are_evenly_spaced_up_to_the_last_step(steps):
    found = choice.points(steps, starts=False)
    assert found[-1] == steps and len(found) <= 4
    assert len({b - a for a, b in itertools.pairwise(found[:-1])}) <= 1
    assert choice.points(steps, starts=True) == [0, *found]


def test_the_run_on_all_pairs_is_that_of_so_many_steps(flat, tmp_path, scripted, capsys):
    scripted(PEAK)
    summary = run_of(flat, tmp_path / "folds")
    assert summary["step"] == 4
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("folds:")]
    assert said == [
        "folds: 3 of them, held-out R@10 20.2 % at step 2, 60.6 % at step 4, 30.3 % at step 8",
        "folds: 4 steps are the best; all pairs are trained on for 4 (folds.json)",
    ]
    run_of(flat, tmp_path / "plain", **{"train.folds": 0, "train.steps": 4, "optim.warmup": 2})
    assert_same_bits(tmp_path / "folds", tmp_path / "plain")


def test_the_record_has_the_curves_and_the_choice_follows_from_them(whole):
    _, path, summary = whole
    record = record_of(path)
    curves = [fold["recall"] for fold in record["folds"]]
    assert record["steps"] == [2, 4, 6, 8] and np.shape(curves) == (3, 4)
    assert record["chosen"] == summary["step"] == by_hand(record["steps"], curves)
    assert [fold["train"] + fold["held_out"] for fold in record["folds"]] == [24] * 3
    np.testing.assert_allclose(record["mean"], np.mean(curves, axis=0))


def test_a_curve_is_that_of_a_run_on_the_pairs_of_the_fold(flat, tiny, tmp_path, monkeypatch):
    folds = []
    monkeypatch.setattr(
        settle, "split", lambda *args: folds.extend(split_lib.split(*args)) or folds
    )
    flat = {**flat, "cache.dtype": "float32", "optim.ema": 0.5}
    run_of(flat, tmp_path / "folds")
    record, rows = record_of(tmp_path / "folds"), (tiny / "pairs.jsonl").read_text().splitlines()
    names = {"train": tmp_path / "train.jsonl", "held_out": tmp_path / "held_out.jsonl"}
    for part, file in names.items():
        made = [json.loads(rows[i]) for i in getattr(folds[1], part)]
        made = [{**row, "image": str(tiny / row["image"])} for row in made]
        file.write_text("".join(json.dumps(row) + "\n" for row in made))
    own = {"data.pairs": str(names["train"]), "data.eval": {"x": str(names["held_out"])}}
    summary = run_of({**flat, **own, "train.folds": 0}, tmp_path / "alone")
    both = summary["eval/x/i2t_r10"] + summary["eval/x/t2i_r10"]
    assert record["folds"][1]["recall"][-1] == pytest.approx(both / 2)


def test_killed_between_folds_and_after_them_it_ends_with_the_same_bits(
    whole, tmp_path, monkeypatch
):
    flat, path, _ = whole
    curve, trained = settle._curve, []

    def until_the_second(run, points, what, requested):
        if what == "fold 2 of 3":
            raise Killed
        return curve(run, points, what, requested)

    def dies(self):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(settle, "_curve", until_the_second)
        with pytest.raises(Killed):
            run_of(flat, tmp_path)
    assert len(record_of(tmp_path)["folds"]) == 1 and not (tmp_path / "summary.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(settle, "_curve", lambda *args: trained.append(args[2]) or curve(*args))
        patch.setattr(loop.Loop, "train", dies)
        with pytest.raises(Killed):
            run_of(flat, tmp_path)
    assert trained == ["fold 2 of 3", "fold 3 of 3"]
    monkeypatch.setattr(settle, "_curve", None)  # Nothing is left to be trained on folds.
    run_of(flat, tmp_path)
    assert record_of(tmp_path) == record_of(path)
    assert_same_bits(path, tmp_path)


def test_a_directory_of_folds_belongs_to_its_config(whole, tmp_path):
    for name in ("config.json", "folds.json"):
        shutil.copy(whole[1] / name, tmp_path)
    with pytest.raises(UserError, match=r"holds a run of another config: train\.steps"):
        run_of(whole[0], tmp_path, **{"train.steps": 12})


def test_a_notice_ends_the_folds_and_says_where(flat, tmp_path, monkeypatch):
    monkeypatch.setattr(settle.Preemption, "requested", lambda self: True)
    with pytest.raises(Preempted, match=r"^asked to end in fold 1 of 3, at step 0 of 8; the same"):
        run_of(flat, tmp_path)


@pytest.mark.parametrize("damage", ["", "{}", '{"asked": 1, "steps": [2], "folds": [{}]}'])
def test_a_damaged_record_is_as_none(whole, tmp_path, damage, capsys):
    flat, path, _ = whole
    config = config_lib.resolve(config_lib.unflatten(flat))
    question = folds_record.asked(config, opened.sources(config).digests())
    assert folds_record.read(path, question)["chosen"] == record_of(path)["chosen"]
    assert folds_record.read(path, {**question, "pairs": {"train": "others"}}) is None
    (tmp_path / "folds.json").write_text(damage)
    assert folds_record.read(tmp_path, question) is None
    assert damage.startswith('{"') or "the folds are trained again" in capsys.readouterr().err


def test_where_the_start_is_best_the_closed_form_is_kept(starting, tmp_path, scripted, capsys):
    scripted({0: 0.5, **PEAK, 4: 0.4})
    summary = run_of({**starting, "optim.ema": 0.9}, tmp_path)
    assert summary["step"] == 0 and summary["closed_form"]["method"] == "cca"
    said = capsys.readouterr().err
    assert "folds: the closed form of start.method='cca' is the best; it is kept and not" in said
    config = config_lib.resolve(config_lib.unflatten({**starting, "train.folds": 0}))
    sources, towers = opened.sources(config), build.load_towers(config)
    solved = run_lib.prepare(config, sources, towers, FeatureStore()).aligned.trainable
    jax.tree.map(np.testing.assert_array_equal, restore(tmp_path).trainable, solved)
    assert ape_jax.load(tmp_path).encode_text(["a red square"]).shape[0] == 1
    (tmp_path / "summary.json").unlink()  # Killed before its last line.
    again = run_of({**starting, "optim.ema": 0.9}, tmp_path)
    assert again["step"] == 0


def test_only_a_start_is_measured_before_the_first_step(flat, starting, tmp_path):
    assert settle._start(config_lib.resolve(config_lib.unflatten(flat))) == ""
    run_of(starting, tmp_path)
    assert record_of(tmp_path)["steps"][0] == 0


def test_folds_share_what_was_encoded(flat, tmp_path, monkeypatch):
    from ape_jax.features import extract

    calls = {"images": 0, "captions": 0}
    for name in calls:
        original = getattr(extract, name)

        def counted(*args, name=name, original=original):
            calls[name] += 1
            return original(*args)

        monkeypatch.setattr(extract, name, counted)
    run_of({**flat, "cache.dir": "none"}, tmp_path)
    assert calls == {"images": 1, "captions": 1}


def test_a_fold_smaller_than_the_batch_takes_all_its_pairs(flat, tmp_path):
    run_of(flat, tmp_path, **{"train.batch": 24})
    assert [fold["batch"] for fold in record_of(tmp_path)["folds"]] == [16] * 3


def dataset_of(pairs):
    captions = captions_of(pairs)
    tokens = None
    return Dataset(pairs, captions, np.zeros((len(pairs), 1, 2), np.float32), tokens)


def folds_of(flat, pairs, source=None, **changes):
    config = config_lib.resolve(config_lib.unflatten({**flat, **changes}))
    return split_lib.split(config, dataset_of(pairs), pairs if source is None else source)


def test_what_is_held_out_shares_no_image_and_no_caption(flat, tiny, tmp_path):
    rows = [json.loads(row) for row in (tiny / "pairs.jsonl").read_text().splitlines()]
    for i in (0, 5, 9):  # The same content under another name, and another caption.
        shutil.copy(tiny / rows[i]["image"], tmp_path / f"copy{i}.png")
        rows.append({"image": str(tmp_path / f"copy{i}.png"), "captions": [f"a copy {i}"]})
    rows[11]["captions"].append(rows[20]["captions"][0])
    for row in rows:
        row["image"] = str(tiny / row["image"])
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for seed in range(5):
        folds = folds_of(flat, open_pairs(str(tmp_path / "pairs.jsonl"), key="k"), seed=seed)
        assert len(folds) == 3
        assert sorted(np.concatenate([fold.held_out for fold in folds])) == list(range(27))
        for fold in folds:
            assert sorted([*fold.train, *fold.held_out]) == list(range(27))
            for a, b in ((0, 24), (5, 25), (9, 26), (11, 20)):
                assert (a in fold.train) == (b in fold.train)


@pytest.mark.parametrize("domain", ["source", "style"])
def test_folds_with_domains_leave_one_out_as_well(flat, tiny, domain):
    rows = [json.loads(line) for line in (tiny / "pairs.jsonl").read_text().splitlines()]
    halves = [tiny / "domain0.jsonl", tiny / "domain1.jsonl"]
    for number, half in enumerate(halves):
        part = [{**row, "style": f"style {number}"} for row in rows[12 * number :][:12]]
        half.write_text("".join(json.dumps(row) + "\n" for row in part))
    columns = {} if domain == "source" else {"domain": ("style",)}
    pairs = open_pairs("::".join(map(str, halves)), key="k", reading=Reading(columns=columns))
    folds = folds_of(flat, pairs, **{"data.domain": domain, "train.folds": 2})
    crossing = [fold for fold in folds if fold.crosses]
    assert len(folds) - len(crossing) == 2 and crossing
    for fold in crossing:
        assert {*(fold.train < 12), *(fold.held_out >= 12)} in ({True}, {False})


def test_captions_that_augmentation_adds_are_not_retrieved(flat, tiny):
    from ape_jax.data.words import leave_out_words

    source = open_pairs(str(tiny / "pairs.jsonl"), key="k")
    varied = leave_out_words(source, 3, 0.5, seed=0)
    fold = folds_of(flat, varied, source, **{"augment.words": (3, 0.5)})[0]
    train, held_out = fold(dataset_of(varied))
    for part, rows in ((train, fold.train), (held_out, fold.held_out)):
        given = varied if part is train else source
        captions = part.captions
        for at, row in enumerate(rows):
            own = captions.text_index[captions.offsets[at] : captions.offsets[at + 1]]
            assert tuple(captions.texts[i] for i in own) == given[int(row)].captions


def test_of_a_large_fold_a_sample_is_retrieved_among(flat, tiny, monkeypatch):
    monkeypatch.setattr(split_lib, "_LIMIT", 5)
    folds = folds_of(flat, open_pairs(str(tiny / "pairs.jsonl"), key="k"))
    assert [(len(fold.train), len(fold.held_out)) for fold in folds] == [(16, 5)] * 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train.folds": 1}, r"^config\.train\.folds: one fold leaves no pairs to train on"),
        ({"text.tune": "full"}, r"^config\.train\.folds: .* it needs image\.tune and text\.tune="),
        ({"cache.text": False}, r"^config\.train\.folds: .* cache\.text=True; where"),
        ({"eval.keep": "best", "data.split": 0.2}, r"^config\.train\.folds: .* eval\.keep='best'"),
        ({"start.run": "runs/x"}, r"^config\.train\.folds: the run of start\.run may have learnt"),
        ({"method": "cca", "text.head.dropout": 0.0}, r"^config\.train\.folds: 3 has no effect"),
    ],
)
def test_settings_that_folds_do_not_go_with_are_refused(flat, changes, words):
    with pytest.raises(UserError, match=words):
        config_lib.resolve(config_lib.unflatten({**flat, **changes}))


def test_pairs_too_few_for_the_folds_are_refused(flat, tmp_path, monkeypatch):
    monkeypatch.setattr(split_lib, "LEAST", 10)
    words = (
        r"^config\.train\.folds: 3 folds of 24 images leave 8 to hold out, and a fold needs at "
        r"least 10 images that share no caption with the others; write fewer folds \(at most 2\) "
    )
    with pytest.raises(UserError, match=words):
        run_of(flat, tmp_path)
    assert not (tmp_path / "folds.json").exists()


def test_a_batch_that_cannot_be_made_smaller_is_refused(flat, tmp_path):
    words = r"^config\.train\.folds: a fold trains on 16 pairs, fewer than train\.batch=24; write"
    with pytest.raises(UserError, match=words):
        run_of(flat, tmp_path, **{"train.batch": 24, "train.micro_batch": 8})


def twice_as_many(folder, flat):
    """As many pairs again, of other pictures."""
    rows = [json.loads(row) for row in (folder / "pairs.jsonl").read_text().splitlines()]
    for row in list(rows):
        with Image.open(folder / row["image"]) as image:
            image.transpose(Image.Transpose.ROTATE_90).save(folder / f"turned-{row['image']}")
        captions = [f"{caption} of the picture" for caption in row["captions"]]
        rows.append({"image": f"turned-{row['image']}", "captions": captions})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {**flat, "train.folds": 2, "train.steps": 4, "train.batch": 8}, {}


def test_processes_train_the_folds_together_and_read_what_the_first_has_chosen(
    tiny, tiny_config, tmp_path
):
    tiny_config.data.eval = {}
    file, _ = started(tiny, tiny_config, tmp_path, twice_as_many, count=1)
    for code, out, stderr in ends(
        2, COMMAND, "train", str(file).replace("#", "0"), tmp_path / "r", timeout=240
    ):
        assert code == 0 and "came to its end" in out, stderr
    record = record_of(tmp_path / "r")
    assert [len(fold["recall"]) for fold in record["folds"]] == [4, 4]
    assert json.loads((tmp_path / "r/summary.json").read_text())["step"] == record["chosen"]
