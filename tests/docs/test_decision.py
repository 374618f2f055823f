"""The decision table is what the script makes of the results that are kept."""

import numpy as np
import pytest

from ape_jax.terminal.tables import RETRIEVAL
from tests.benchmarks import decision


def test_the_page_has_the_table_of_the_results():
    page = decision.PAGE.read_text(encoding="utf-8")
    assert decision.BEGIN + decision.table() + decision.END in page


def row(*values):
    return {name: {m: list(values) for m in RETRIEVAL} for name in ("same", "other")}


@pytest.fixture
def summary():
    """Two methods of three seeds on 200 images a set, five points apart."""
    methods = {"few_pairs": row(0.30, 0.31, 0.29), "cca": row(0.25, 0.26, 0.24)}
    return {"images": {"same": 200, "other": 200}, "sizes": {"512": methods}}


def test_without_intervals_the_size_of_the_test_says_what_is_level(summary):
    """1.96 sqrt(.3 * .7 / 400) is 4.5 points."""
    assert decision.rows(summary) == [["512", "`few_pairs`", "30.0", "30.0", "none"]]
    summary["images"] = {"same": 100, "other": 100}
    assert decision.rows(summary)[0][-1] == "CCA"


def test_intervals_of_the_best_are_used(summary):
    def differences(low):
        of = {"cca": [5.0, low, 9.0]}
        return {"reference": "few_pairs", "sizes": {"512": {"same": of, "other": of}}}

    assert decision.rows({**summary, "differences": differences(-0.5)})[0][-1] == "CCA"
    assert decision.rows({**summary, "differences": differences(0.5)})[0][-1] == "none"


def test_scores_are_the_mean_of_both_ways_and_sets():
    sets = {"a": {"i2t_r10": [0.1], "t2i_r10": [0.3]}, "b": {"i2t_r10": [0.5], "t2i_r10": [0.5]}}
    np.testing.assert_allclose(decision.scores(sets, ("a", "b")), [35.0])
