"""Tables."""

from ape_jax.terminal import tables as report


def test_retrieval_table_gives_percent_a_row_a_set():
    metrics = dict.fromkeys(report.RETRIEVAL, 0.125) | {"median_rank_t2i": 7.0}
    summary = {f"eval/{name}/{k}": v for name in ("b", "a") for k, v in metrics.items()}
    lines = report.retrieval_table({**summary, "step": 3, "eval/z/top1": 0.5}).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| a ") and lines[3].startswith("| b ")
    assert "12.5" in lines[2] and lines[2].endswith("7.0 |")
    assert len({len(line) for line in lines}) == 1


def test_chance_stands_below_the_set_whose_it_is():
    metrics = dict.fromkeys(report.RETRIEVAL, 0.5)
    summary = {f"eval/{name}/{k}": v for name in ("b", "a") for k, v in metrics.items()}
    summary |= {f"chance/b/{k}": 0.25 for k in metrics}
    lines = report.retrieval_table(summary).splitlines()
    assert [line.split()[1] for line in lines[2:]] == ["a", "b", "chance"]
    assert "25.0" in lines[-1]
