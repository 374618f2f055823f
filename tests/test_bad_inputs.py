"""What a user can get wrong: one sentence on stderr, a non-zero exit, nothing half-written."""

import json
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest

from ape_jax import config as config_lib
from ape_jax import evaluate, main
from ape_jax.terminal import command


@pytest.fixture
def world(tiny, tiny_config, tmp_path):
    """A copy of the tiny world that a case may damage, and a config file that points at it."""
    root = tmp_path / "world"
    shutil.copytree(tiny, root)
    flat = config_lib.flatten(config_lib.resolve(tiny_config))
    flat = json.loads(json.dumps(flat).replace(str(tiny), str(root)))
    (root / "config.json").write_text(json.dumps(flat))
    (root / "config.py").write_text(
        "import json, ml_collections\n"
        "from ape_jax import config\n"
        "def get_config(arg=''):\n"
        f"    flat = json.load(open({str(root / 'config.json')!r}))\n"
        "    return ml_collections.ConfigDict(config.unflatten(flat))\n"
    )
    return root


def lines(root):
    return [json.loads(line) for line in (root / "pairs.jsonl").read_text().splitlines()]


def write_lines(root, records):
    (root / "pairs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))


def edit(index, **changes):
    def case(root):
        records = lines(root)
        records[index].update(changes)
        write_lines(root, records)

    return case


def truncate(name, size):
    def case(root):
        (root / name).write_bytes((root / name).read_bytes()[:size])

    return case


def huge_png(root):
    """A header that promises 100,000 x 100,000 pixels."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    (root / "red-bar.png").write_bytes(png)


def zip_as_image(root):
    with zipfile.ZipFile(root / "red-bar.png", "w") as archive:
        archive.writestr("x", "y")


def wrong_shape(root):
    from safetensors.numpy import load_file, save_file

    path = root / "text/model.safetensors"
    tensors = load_file(path)
    name = next(n for n in tensors if n.endswith("query.weight"))
    tensors[name] = tensors[name][:, :-1].copy()
    save_file(tensors, path)


def only_bin(root):
    (root / "text/model.safetensors").rename(root / "text/pytorch_model.bin")


def pickled_npz(root):
    np.savez(root / "image.npz", weights=np.array([{"a": 1}], dtype=object))


def other_run(root):
    (root / "run").mkdir()
    flat = json.loads((root / "config.json").read_text())
    (root / "run/config.json").write_text(json.dumps({**flat, "seed": 7}))
    (root / "run/metrics.jsonl").write_text('{"step": 1, "train/loss": 2.5}\n')  # Worth keeping.


def run_in_a_file(root):
    (root / "run").write_text("")


def nothing(root):
    del root


CASES = {
    "unknown key": (nothing, ["--config.text.head.depht=3"], ["text.head.depth"]),
    "wrong type": (nothing, ["--config.train.steps=many"], ["train.steps", "integer"]),
    "out of range": (nothing, ["--config.text.head.dropout=1.5"], ["text.head.dropout", "0.99"]),
    "zero-width crop": (nothing, ["--config.augment.crop=(0,0)"], ["augment.crop"]),
    "code as a value": (nothing, ["--config.seed=__import__('os')"], ["seed", "integer"]),
    "unknown flag": (nothing, ["--worldir=x"], ["worldir"]),
    "stray argument": (nothing, ["train"], ["train"]),
    "no config file": (nothing, ["--config=no.py"], ["no.py"]),
    "no workdir": (nothing, ["--workdir="], ["--workdir"]),
    "missing pairs": (nothing, ["--config.data.pairs=no.jsonl"], ["data.pairs", "no.jsonl"]),
    "unknown pairs form": (nothing, ["--config.data.pairs=x.docx"], ["data.pairs", ".jsonl"]),
    "missing eval pairs": (nothing, ["--config.data.eval.t=no.csv"], ["data.eval.t", "no.csv"]),
    "empty pairs": (truncate("pairs.jsonl", 0), [], ["pairs.jsonl"]),
    "cut-off JSON": (truncate("pairs.jsonl", 30), [], ["pairs.jsonl:1"]),
    "caption is a number": (edit(3, captions=[7]), [], ["pairs.jsonl:4", "caption"]),
    "caption is empty": (edit(3, captions=[""]), [], ["pairs.jsonl:4", "caption"]),
    "no captions": (edit(3, captions=[]), [], ["pairs.jsonl:4", "caption"]),
    "missing image": (edit(3, image="no.png"), [], ["no.png"]),
    "one id, two images": (edit(3, id="red-square"), [], ["red-square"]),
    "truncated PNG": (truncate("red-bar.png", 90), [], ["red-bar.png"]),
    "huge PNG header": (huge_png, [], ["red-bar.png", "pixels"]),
    "zip as an image": (zip_as_image, [], ["red-bar.png"]),
    "one single pair": (lambda r: write_lines(r, lines(r)[:1]), [], ["data.pairs", "at least 2"]),
    "bucket as workdir": (nothing, ["--workdir=gs://bucket/run"], ["--workdir", "gs://"]),
    "workdir with a pattern": (nothing, ["--workdir={root}/run[1]"], ["--workdir", "pattern"]),
    "views without augmentation": (nothing, ["--config.cache.views=4"], ["cache.views", "augment"]),
    "decay with plain adam": (
        nothing,
        ["--config.optim.name=adam", "--config.optim.weight_decay=0.1"],
        ["optim.weight_decay", "adamw"],
    ),
    "key without effect": (nothing, ["--config.text.pooling=cls"], ["text.pooling", "token_mlp"]),
    "batch larger than the data": (nothing, ["--config.train.batch=32"], ["train.batch", "24"]),
    "batch that does not divide": (nothing, ["--config.train.batch=12"], ["train.batch", "16"]),
    "no such tower": (nothing, ["--config.image.tower=no/such"], ["image.tower", "no/such"]),
    "unknown demo tower": (nothing, ["--config.image.tower=demo:x"], ["image.tower", "vit_s14"]),
    "text tower as image": (nothing, ["--config.image.tower={root}/text"], ["image.tower"]),
    "tower without config": (lambda r: (r / "text/config.json").unlink(), [], ["text.tower"]),
    "truncated weights": (truncate("text/model.safetensors", 500), [], ["text.tower"]),
    "misshapen tensor": (wrong_shape, [], ["text.tower", "query.weight"]),
    "only a .bin": (only_bin, [], ["text.tower", "safetensors"]),
    "npz with pickles": (pickled_npz, ["--config.image.tower={root}/image.npz"], ["image.tower"]),
    "layer too deep": (nothing, ["--config.image.layer=9"], ["image.layer", "2 blocks"]),
    "pooling it lacks": (nothing, ["--config.image.pooling=map"], ["image.pooling"]),
    "rule without a match": (
        nothing,
        ["--config.optim.decay_on=kernell", "--config.optim.weight_decay=0.1"],
        ["optim.decay_on", "text_head"],
    ),
    "another config's workdir": (other_run, [], ["seed", "new work directory"]),
    "unwritable workdir": (run_in_a_file, [], ["--workdir", "run"]),
}


def start(argv, entry=main.main):
    """Runs a command in this process; returns its exit code."""
    with pytest.raises(SystemExit) as stop:
        command.run(entry, ["ape_jax", *argv])
    return stop.value.code


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_one_sentence_and_leaves_nothing_half_written(name, world, capsys):
    damage, arguments, words = CASES[name]
    damage(world)
    before = set(world.glob("run/*"))
    arguments = [a.format(root=world) for a in arguments]
    argv = [f"--config={world}/config.py", f"--workdir={world}/run", *arguments]
    assert start(argv) in (1, 2)
    said = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert len(said) == 1
    for word in words:
        assert word in said[0]
    left = {p.name for p in set(world.glob("run/*")) - before}
    # The record of whose directory it is, and no results.
    assert left <= {"config.json", ".lock", "checkpoints"}
    assert not list(world.glob("run/checkpoints/*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data=no.jsonl"], "no.jsonl"),
        (["--task=zeroshot"], "--data"),
        (["--task=zeroshot", "--data={root}/labels.csv", "--classnames=no.txt"], "no.txt"),
        (["--task=zeroshot", "--data={root}/labels.csv", "--classnames={root}/few.txt"], "label"),
        (["--task=zeroshot", "--data={root}/labels.csv", "--classnames={root}/twice.txt"], "line"),
        (["--data={root}/pairs.jsonl"], "no run"),
    ],
)
def test_mistake_in_evaluate_is_one_sentence(arguments, words, world, capsys):
    (world / "labels.csv").write_text("image,label\nred-bar.png,5\n")
    (world / "few.txt").write_text("a\nb\n")
    (world / "twice.txt").write_text("a\na\n")
    argv = [f"--workdir={world}/run", *(a.format(root=world) for a in arguments)]
    assert start(argv, evaluate.main) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("error: ") and words in said[0]


def test_command_prints_no_traceback_and_exits_with_1(world):
    argv = [sys.executable, "-m", "ape_jax.main", f"--config={world}/config.py", "--config.seed=x"]
    out = subprocess.run([*argv, "--workdir=x"], capture_output=True, text=True, timeout=120)
    assert out.returncode == 1
    assert out.stderr.startswith("error: config.seed") and out.stderr.count("\n") == 1
