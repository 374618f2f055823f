"""Fitting the planner's constants to times."""

import dataclasses

import numpy as np
import pytest

from ape_jax.planner.shares import GUESSED, Shares
from tests.accelerator.plan import fit


def programs(known, count=12, noise=0.0, bound="both"):
    """Times of programs of a chip with these shares."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(count):
        products, memory = 10 ** rng.uniform(-4, -1, 2)
        if bound == "products":
            memory = products / 100
        seconds = known.seconds(products, memory, 0.0) * np.exp(noise * rng.normal())
        timed = {"products": products, "memory": memory, "links": 0.0, "seconds": float(seconds)}
        made.append(fit.Timed(name=str(i), **timed))
    return made


@pytest.mark.parametrize("combine", ["max", "sum"])
@pytest.mark.parametrize("fixed", [0.0, 2e-4])
def test_shares_that_made_the_times_are_found(combine, fixed):
    known = Shares(matrix=0.62, memory=0.71, combine=combine, fixed=fixed)
    found = fit.fit(programs(known))
    assert found.combine == combine
    assert (found.matrix, found.memory) == pytest.approx((0.62, 0.71), rel=0.01)
    assert found.fixed == pytest.approx(fixed, rel=0.02, abs=1e-6)
    assert found.error < 0.01 and found.programs == 12


def test_the_error_is_that_of_the_worst_program():
    found = fit.fit(timed := programs(Shares(matrix=0.4, memory=0.9), noise=0.2))
    assert found.error == max(abs(one.error(found)) for one in timed)
    assert 0.1 < found.error < 1.0


def test_what_no_program_depends_on_stays_at_its_guess():
    known = Shares(matrix=0.3, memory=0.4, combine="max")
    found = fit.fit(programs(known, bound="products"))
    assert found.matrix == pytest.approx(0.3, rel=0.01)
    assert found.link == GUESSED.link
    if found.combine == "max":
        assert found.memory == pytest.approx(GUESSED.memory, rel=0.05)


def test_the_last_run_in_a_file_of_figures_is_read():
    def line(name, milliseconds):
        peaks = {f"{k} at peak, ms": 1.0 for k in ("products", "memory", "links")}
        beside = {"measured ms": milliseconds, **peaks}
        return {"part": "plan/steps", "name": name, "value": 1.0, "beside": beside}

    machine = {"part": "plan/steps", "name": "machine", "value": "H200", "beside": {"chip": "h200"}}
    lines = [machine, line("a", 1.0), line("b", 1.0), machine, line("a", 2.0)]
    lines += [{"part": "fast/card", "name": "x", "value": 1.0, "beside": {}}]
    chip, source, (timed,) = fit.timed(lines)
    assert (chip, source, timed.name, timed.seconds) == ("h200", "H200", "a", 2e-3)
    with pytest.raises(SystemExit, match="no figures of plan/steps"):
        fit.timed([])


def test_a_row_of_the_table_is_read_as_it_was_fitted():
    from ape_jax.planner import shares

    found = Shares(matrix=0.6, memory=0.7, combine="sum", programs=9, error=0.18, source="today")
    table = shares.read({"h200": dataclasses.asdict(found)})
    assert table == {"h200": found}
