"""The files that pages of the documentation speak of, tiny: photos, pairs, runs and a hub."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import sys
from pathlib import Path

HUB = {
    "facebook/dinov2-small": "image",
    "sentence-transformers/all-MiniLM-L6-v2": "text",
    "intfloat/multilingual-e5-small": "text",
    "google-bert/bert-base-uncased": "text",
}


def write_world(folder: Path, tiny: Path, run: Path) -> None:
    """Fills a folder.

    Args:
      folder: empty.
      tiny: the tests' tiny towers and pairs.
      run: a run that was trained on them.
    """
    records = [json.loads(line) for line in (tiny / "pairs.jsonl").read_text().splitlines()]
    (folder / "photos").mkdir()
    rows = []
    for number, record in enumerate(records, 1):
        path = f"photos/{number:04}.png"
        shutil.copy(tiny / record["image"], folder / path)
        rows += [(path, caption) for caption in record["captions"]]
    _csv(folder / "photos.csv", ("image", "caption"), rows)
    _jsonl(folder / "pairs.jsonl", rows[:40])
    _jsonl(folder / "test.jsonl", rows[40:])
    for name, number in (("cat", 1), ("dog", 6)):
        shutil.copy(folder / f"photos/{number:04}.png", folder / f"{name}.png")
    _csv(folder / "labelled.csv", ("image", "label"), [("cat.png", "cat"), ("dog.png", "dog")])
    (folder / "names.txt").write_text("cat\ndog\n")
    for name in ("mine", "photos"):
        shutil.copytree(run, folder / "runs" / name)
    for name, side in HUB.items():
        _repository(folder / "hub", name, tiny / side)
    (folder / "bin").mkdir()
    script = folder / "bin/ape-jax"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m ape_jax "$@"\n')
    script.chmod(0o755)


def _csv(path: Path, head: tuple[str, ...], rows: list[tuple[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])


def _jsonl(path: Path, rows: list[tuple[str, str]]) -> None:
    lines = [json.dumps({"image": image, "caption": caption}) for image, caption in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _repository(hub: Path, name: str, source: Path) -> None:
    """A repository as huggingface_hub keeps it once it has been downloaded."""
    root = hub / f"models--{name.replace('/', '--')}"
    commit = hashlib.sha1(name.encode()).hexdigest()
    shutil.copytree(source, root / "snapshots" / commit)
    (root / "refs").mkdir()
    (root / "refs/main").write_text(commit)
