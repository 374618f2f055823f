"""The captions of one image are joined."""

import numpy as np

from ape_jax.data.specs import open_pairs
from ape_jax.data.table import sheet


def test_blocks_of_a_large_table_join_across_their_borders(folder, monkeypatch, write, made):
    """Small blocks stand for large sets."""
    rng = np.random.default_rng(0)
    rows = [("abc"[i] + ".png", f"caption {j}") for i, j in rng.integers(0, [3, 9], (200, 2))]
    path = write(folder / "p.jsonl", rows)
    whole = made(path)
    for module in ("joining.join", "stored", "texts"):
        monkeypatch.setattr(f"ape_jax.data.table.{module}.BATCH_ROWS", 2)
    monkeypatch.setattr("ape_jax.data.table.builder._BLOCK", 7)
    monkeypatch.setattr("ape_jax.data.table.builder._FIRST", 5)
    monkeypatch.setattr(sheet, "_IN_MEMORY", 0)
    blocks = open_pairs(path)
    assert blocks.table.folder is not None and len(blocks.table.batches) == 2
    assert made(blocks) == whole == [(p.id, p.captions) for p in map(blocks.__getitem__, range(3))]
