"""A study over two domains with a reference: the differences of its tables, and their intervals."""

import json

import numpy as np
import pytest

from ape_jax import config as config_lib
from ape_jax.errors import UserError
from ape_jax.runs.directory import ranks_file
from ape_jax.studies import domains, study
from ape_jax.studies import tables as study_tables
from ape_jax.studies.config import StudyConfig
from ape_jax.terminal.tables import RETRIEVAL


@pytest.fixture(scope="module")
def half(tiny, tmp_path_factory):
    """Every second pair of the tiny world, as a file of its own."""
    path = tmp_path_factory.mktemp("half") / "half.jsonl"
    rows = [json.loads(line) for line in (tiny / "pairs.jsonl").read_text().splitlines()][::2]
    lines = [json.dumps({**row, "image": str(tiny / row["image"])}) for row in rows]
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture(scope="module")
def config(new_tiny_config, half):
    config = new_tiny_config()
    config.train.batch, whole = 8, config.data.pairs
    config.study.methods, config.study.reference = ("chance", "ridge", "cca"), "cca"
    config.study.sizes, config.study.seeds = (8,), 2
    config.study.domains = (
        ("whole", whole, (("train", whole),)),
        ("half", half, (("train", whole), ("half", half))),
    )
    return config_lib.resolve(config, StudyConfig)


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    path = tmp_path_factory.mktemp("domains")
    return path, study.run_study(config, path)


def test_a_difference_is_that_of_the_means_of_all_runs(finished):
    _, summary = finished
    found = summary["differences"]
    assert (found["reference"], found["level"]) == ("cca", 0.95)
    assert list(found["sizes"]["8"]) == ["train", "half"]
    for name, of in found["sizes"]["8"].items():
        assert list(of) == ["ridge"]  # Chance has no ranks.
        value, low, high = of["ridge"]
        means = [
            study_tables.recall(summary["methods"], method, name).mean()
            for method in ("cca", "ridge")
        ]
        assert value == pytest.approx(means[0] - means[1])
        assert low <= value <= high and low < high


def test_a_set_of_two_domains_has_the_runs_of_both(finished):
    path, summary = finished
    each = [json.loads((path / name / "summary.json").read_text()) for name in ("whole", "half")]
    for method in ("ridge", "cca"):
        values = summary["methods"][method]["train"]["i2t_r10"]
        assert values == [x for s in each for x in s["methods"][method]["train"]["i2t_r10"]]
        assert len(values) == 4 and len(summary["methods"][method]["half"]["i2t_r10"]) == 2
    assert summary["images"] == {"train": 48, "half": 12}
    assert set(summary["digests"]) == {"whole/train", "whole/eval/train"} | {
        f"half/{key}" for key in ("train", "eval/train", "eval/half")
    }


def test_kept_ranks_have_the_metrics_of_the_run(finished):
    path, _ = finished
    cell = path / "half" / "cca" / "n8" / "seed1"
    metrics = json.loads((cell / "summary.json").read_text())
    ids, ranks = ranks_file.read(cell)["train"]
    assert len(ids) == len(set(ids.tolist())) == 24
    for metric, value in ranks.metrics().items():
        assert metrics[f"eval/train/{metric}"] == value


def test_tables_show_the_differences(finished):
    path, summary = finished
    table = (path / "table.md").read_text()
    value, low, high = summary["differences"]["sizes"]["8"]["train"]["ridge"]
    assert f"{value:+.1f} [{low:+.1f}, {high:+.1f}]" in table
    assert "train: R@10, mean of both ways: CCA minus the method in the row" in table
    assert "95 % intervals over test images and seeds" in table


def test_a_finished_study_of_domains_is_not_repeated(finished, config, monkeypatch):
    path, summary = finished
    monkeypatch.setattr(study.run_lib, "prepare", None)
    again = study.run_study(config, path)
    assert again["differences"] == summary["differences"]
    assert again["methods"] == summary["methods"]


def test_missing_ranks_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"ranks\.npz is not there; delete .* and run it again"):
        ranks_file.read(tmp_path)
    (tmp_path / "ranks.npz").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(UserError, match=r"ranks\.npz is damaged .*; delete"):
        ranks_file.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"study.reference": "ape"}, "study.reference: write one of .*, ridge, cca; found 'ape'"),
        ({"study.reference": "chance"}, "study.reference: write one of .*; found 'chance'"),
        ({"data.eval": {"a": "b.jsonl"}}, "study.domains: .* write those of the first"),
        ({"eval.keep": "best"}, "eval.ranks: ranks are kept of the last evaluation"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(config, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        study.run_study(config.replace(changes), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_sizes_of_all_pairs_are_called_by_their_mean():
    def summary(pairs, value):
        rows = {"cca": {"t": {metric: [value] for metric in RETRIEVAL}}}
        costs = {"cca": {"trained": pairs, "share": 0.5, "seconds": value}}
        sizes = {"8": rows, str(pairs): rows}
        return {"methods": rows, "images": {"t": 5}, "costs": costs, "sizes": sizes}

    # Read back from its file, a summary has its sizes in another order.
    back = json.loads(json.dumps(summary(131, 0.3), sort_keys=True))
    assert list(back["sizes"]) == ["131", "8"]
    merged = domains.merge([summary(20, 0.1), back], (8, 0))
    assert list(merged["sizes"]) == ["8", "76"]
    assert merged["sizes"]["76"]["cca"]["t"]["i2t_r1"] == [0.1, 0.3]
    assert merged["costs"]["cca"] == {"trained": 75.5, "share": 0.5, "seconds": pytest.approx(0.2)}
    assert "20.0 ± 14.1" in study_tables.tables(merged)
    assert np.isfinite(merged["images"]["t"])
