"""Files of a work directory in which anything stands: one sentence, or made again with a line."""

import json
import os
import random

import pytest

from ape_jax import config as config_lib
from ape_jax.data.table.problems import Problems
from ape_jax.errors import UserError
from ape_jax.runs.directory import claim, summaries, workdir
from ape_jax.training import metrics
from ape_jax.training.records import left_out

BYTES = {
    "empty": b"",
    "a number": b"3",
    "a list": b"[]",
    "cut off": b'{"seed": 0, "image.to',
    "nested": b"[" * 100_000,
    "nested objects": b'{"a":' * 100_000,
    "nested value": b'{"seed": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "NUL": b'{"seed": 0}\0',
    "only NUL": bytes(4096),
    "not UTF-8": b'{"image.tower": "\xff\xfe"}',
    "UTF-16": '{"seed": 0}'.encode("utf-16"),
    "half a character": b'{"image.tower": "\\ud800"}',
    "long number": b'{"seed": ' + b"9" * 5000 + b"}",
    "infinite": b'{"optim.lr": 1e999, "seed": 1e999}',
    "not a number": b'{"optim.lr": NaN}',
    "empty key": b'{"": 1, ".": 2, "a..b": 3}',
    "key in a value": b'{"image": 3, "image.tower": "x"}',
    "no such key": b'{"no.such": 1}',
    "binary": random.Random(0).randbytes(1 << 16),
}
PLACES = {
    "pipe": os.mkfifo,
    "folder": os.mkdir,
    "link to itself": lambda path: os.symlink(path, path),
    "link to a device": lambda path: os.symlink("/dev/zero", path),
}
VALUES = [None, True, -1, 10**400, 0.5, float("nan"), "", "\0", [], [[]], {}, {"": {}}, [None, 3]]


def put(path, damage):
    path.unlink(missing_ok=True)
    if damage in PLACES:
        PLACES[damage](path)
    else:
        path.write_bytes(BYTES[damage])


def is_sentence(error):
    return "\n" not in str(error.value) and len(str(error.value)) < 1000


@pytest.fixture
def config(tiny_config):
    return config_lib.resolve(tiny_config)


@pytest.fixture
def taken(tmp_path, config):
    path = tmp_path / "run"
    with claim.claimed(path, config):
        pass
    return path


@pytest.mark.parametrize("damage", [*BYTES, *PLACES])
def test_a_damaged_config_is_one_sentence_that_names_it(taken, config, damage):
    put(taken / "config.json", damage)
    reads = [workdir.read_config]
    if damage != "link to itself":  # Where nothing is, a start takes the place.
        reads.append(lambda path: claim.claimed(path, config).__enter__())
    for read in reads:
        with pytest.raises(UserError, match=r"--workdir: .*run") as error:
            read(taken)
        assert is_sentence(error), error.value


def test_any_value_of_any_key_of_a_config_is_taken_or_one_sentence(taken, config):
    flat = json.loads((taken / "config.json").read_text())
    refused = 0
    for key in flat:
        for value in VALUES:
            (taken / "config.json").write_text(json.dumps({**flat, key: value}))
            try:
                workdir.require_same(taken, config)
            except UserError as error:
                refused += 1
                assert "\n" not in str(error), (key, value)
    assert refused > 8 * len(flat)


@pytest.mark.parametrize("damage", [*BYTES, *PLACES])
def test_a_damaged_summary_is_no_summary_and_is_said(taken, config, damage, capsys):
    put(taken / "summary.json", damage)
    if damage in ("infinite", "not a number", "empty key", "key in a value", "no such key"):
        assert summaries.read(taken)[0] is not None  # Nothing in it is a summary's key.
    elif damage == "link to itself":
        assert workdir.read_summary(taken, config) is None
        return
    else:
        assert workdir.read_summary(taken, config) is None
        assert "is made again" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"no run that has come to its end") as error:
        workdir.finished(taken, config)
    assert is_sentence(error)
    assert workdir.recorded_digests(taken) == {}


RUN = {
    "step": 8,
    "pairs": 24,
    "parameters_trained": 3,
    "parameters_frozen": 4,
    "seconds_last_start": 1.5,
    "best_step": 4,
    "images_skipped_in_step": 0,
    "digests": {"train": "abc"},
    "left_out": {"train": {"missing image": 1}},
    "eval/train/i2t_r1": 0.5,
    "chance/train/i2t_r1": 0.5,
}


def test_a_value_of_another_kind_anywhere_in_a_summary_is_found(taken, config):
    sound = {
        key: [value for value in VALUES if _like(value, like) is not None]
        for key, like in RUN.items()
    }
    for key in RUN:
        for value in VALUES:
            (taken / "summary.json").write_text(json.dumps({**RUN, key: value}))
            if value in sound[key]:
                continue
            with pytest.raises(UserError, match=r"damaged summary\.json") as error:
                workdir.finished(taken, config)
            assert key in str(error.value) and is_sentence(error)
    (taken / "summary.json").write_text(json.dumps(RUN))
    assert workdir.finished(taken, config) == RUN


def _like(value, like):
    """The value where it may stand for one like that, else None."""
    if isinstance(like, dict):
        inside = any(isinstance(inner, dict) for inner in like.values())
        return value if value == {} or (inside and value == {"": {}}) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isinstance(like, float) else None


@pytest.mark.parametrize("key", RUN)
def test_a_finished_run_without_a_key_is_damaged_where_it_always_has_it(taken, config, key):
    (taken / "summary.json").write_text(json.dumps({k: v for k, v in RUN.items() if k != key}))
    if key in ("step", "pairs") or key.startswith(("parameters", "seconds")):
        with pytest.raises(UserError, match=f"has no '{key}'"):
            workdir.finished(taken, config)
    else:
        workdir.finished(taken, config)


LINES = [b"", b"3", b"[]", b"{}", b'{"step": null}', b'{"step": "2"}', b'{"step": true}']
LINES += [b'{"step": 2.5}', b'{"step": 2, "train/loss": "x"}', b'{"step": 2, "train/loss": [1]}']
LINES += [b"[" * 100_000, b"\xff", b"\0", b'{"step": 2', b'{"step": 2, "a": {"b": 3}}']


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_a_damaged_line_of_metrics_is_dropped_and_said(tmp_path, line, capsys):
    good = b'{"step": 2, "train/loss": 0.5}\n'
    (tmp_path / "metrics.jsonl").write_bytes(good + line + b"\n" + good + b'{"step": 4, "tr')
    assert metrics.read(tmp_path) == [{"step": 2, "train/loss": 0.5}] * 2
    assert "a line that cannot be read was dropped" in capsys.readouterr().err


@pytest.mark.parametrize("damage", PLACES)
def test_metrics_that_are_no_file_are_one_sentence(tmp_path, damage):
    PLACES[damage](tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match=r"--workdir: .*metrics\.jsonl") as error:
        metrics.read(tmp_path)
    assert is_sentence(error)


@pytest.mark.parametrize("damage", [*BYTES, *PLACES])
def test_a_damaged_list_of_what_is_left_out_is_made_again(tmp_path, damage):
    put(tmp_path / "left_out.jsonl", damage)
    if damage == "folder":
        with pytest.raises(UserError, match=r"left_out\.jsonl cannot be written"):
            left_out.write(tmp_path, {"train": Problems()}, keeps=True)
    else:
        left_out.write(tmp_path, {"train": Problems()}, keeps=True)


@pytest.mark.parametrize("name", ["a\0b", "a" * 300, "", " ", "x/" * 3000])
def test_a_name_that_no_directory_can_have_is_one_sentence(name):
    with pytest.raises(UserError, match="--workdir: ") as error:
        workdir.locate(name)
    assert is_sentence(error)
