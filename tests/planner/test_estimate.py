"""What is made of what the compiler says."""

import types

import pytest

from ape_jax.config import Config
from ape_jax.errors import UserError
from ape_jax.planner import estimate, report, slices
from ape_jax.planner.shapes import Captions

CAPTIONS = Captions(mean=13.0, longest=64)


@pytest.mark.parametrize(
    ("limit", "least", "micro"),
    [(100, 88, 0), (4, 4, 0), (3, 0, 0), (70_000, 61_250, 0), (100, 88, 8), (7, 0, 8)],
)
def test_the_search_ends_just_below_what_does_not_fit(monkeypatch, limit, least, micro):
    tried = []

    def training(config, where, captions, made):
        tried.append(config.train.batch)
        assert config.train.batch % (micro or 4) == 0 and config.train.micro_batch == micro
        return types.SimpleNamespace(fits=config.train.batch <= limit)

    monkeypatch.setattr(estimate, "training", training)
    monkeypatch.setattr(estimate, "assemble", lambda config, where: None)
    config = Config().replace({"train.batch": 512, "train.micro_batch": micro})
    said = []
    best = estimate.largest_batch(config, slices.parse("v5e:2x2"), CAPTIONS, said.append)
    assert least <= best <= limit and best % (micro or 4) == 0
    assert len(tried) == len(set(tried)) == len(said)
    assert config.train.batch == 512


@pytest.mark.parametrize(
    ("passes", "memory", "sent", "seconds"),
    [
        (4 * 197e12, 0, 0, (1.0, 0, 0)),
        (0, 819e9 * 2, 0, (0, 2.0, 0)),
        (0, 0, 200e9 * 3, (0, 0, 3.0)),
    ],
)
def test_products_are_shared_out_and_memory_and_links_are_each_devices(
    passes, memory, sent, seconds
):
    found = estimate.peak_seconds(slices.parse("v5e:2x2"), passes, memory, sent)
    assert found == pytest.approx(seconds)


def test_closed_forms_are_not_planned():
    config = Config().replace({"method": "cca"})
    with pytest.raises(UserError, match=r"config\.method: 'cca' is solved and not trained"):
        estimate.assemble(config, slices.parse("v5e:2x2"))


def test_the_time_to_encode_counts_views_and_whole_batches():
    cost = estimate.Cost(fits=True, arguments={}, flops=1.0, passes=1.0, seconds=3.6, rows=64)
    config = Config().replace({"cache.views": 3})
    made = report.record(
        config, slices.parse("v5e:2x2"), CAPTIONS, cost, {"images": cost, "captions": cost}, 65
    )
    # 195 images are four batches, 65 captions two.
    assert made["encoding_hours"] == pytest.approx(6 * 3.6 / 3600)
    assert "encoding all pairs: 0.01 hours" in report.text(made)
