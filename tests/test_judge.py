"""clip_benchmark's own command, whole, beside ours on the same images and captions."""

import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import pytest

from ape_jax import evaluate
from ape_jax.terminal import command

ROOT = pathlib.Path(__file__).parent.parent
# Apart from the environment's packages: where torchvision is, transformers resizes with it.
PACKAGES = pathlib.Path(sys.prefix) / "judges"
# Their command several times in one process: to import it takes longer than to run it.
RUN = """
import json, sys
from ape_jax import judge
from ape_jax.terminal import command
codes = []
for words in json.loads(sys.argv[1]):
    sys.argv[:] = ["judge", *words]
    try:
        command.run(judge.main, argv=sys.argv[:1])
    except SystemExit as end:
        codes.append(end.code or 0)
print(json.dumps(codes))
"""


def write_shard(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, members in rows.items():
            for suffix, data in members.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="module")
def sets(tiny, tmp_path_factory):
    """A folder with the tiny pairs as two WebDatasets of clip_benchmark: `shapes` and `pairs`."""
    root = tmp_path_factory.mktemp("sets")
    records = [json.loads(line) for line in (tiny / "pairs.jsonl").read_text().splitlines()]
    names = sorted(record["id"].replace("-", " ") for record in records)
    classes, captions = {}, {}
    for record in records:
        image, name = (tiny / record["image"]).read_bytes(), record["id"].replace("-", " ")
        classes[record["id"]] = {"png": image, "cls": str(names.index(name)).encode()}
        captions[record["id"]] = {"png": image, "txt": "\n".join(record["captions"]).encode()}
    keys = list(classes)
    for shard in range(2):  # One for each worker that reads.
        chosen = {key: classes[key] for key in keys[shard::2]}
        write_shard(root / f"shapes/test/{shard}.tar", chosen)
    write_shard(root / "pairs/test/0.tar", captions)
    (root / "shapes/test/nshards.txt").write_text("2")
    (root / "pairs/test/nshards.txt").write_text("1")
    (root / "pairs/dataset_type.txt").write_text("retrieval")
    (root / "shapes/classnames.txt").write_text("\n".join(names) + "\n")
    (root / "shapes/zeroshot_classification_templates.txt").write_text("{c}\na {c}\n")
    (root / "templates.txt").write_text("{}\na {}\n")
    return root


def ours(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        command.run(evaluate.main, ["ape_jax", "--json", *arguments])
    assert not stop.value.code
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    return {key.split("/")[-1]: value for key, value in found.items() if key.startswith("eval/")}


@pytest.mark.slow
def test_their_command_prints_the_figures_of_ours(tiny_run, tiny, sets, tmp_path, capsys):
    assert PACKAGES.is_dir(), f"{PACKAGES} is missing; launch/test.sh all makes it"
    # Their results go into the run's directory, which is other tests' as well.
    shutil.copytree(tiny_run, tmp_path / "run")
    common = [
        "--model",
        str(tmp_path / "run"),
        "--batch_size=10",
        "--dataset_root",
        str(sets / "{dataset}"),
    ]
    retrieval = ["--task=zeroshot_retrieval", "--num_workers=1", "--recall_k", "1", "5", "10"]
    commands = [
        ["eval", "--dataset=wds/shapes", "--num_workers=2", *common],
        ["eval", "--dataset=wds/pairs", *retrieval, *common],
        ["eval", "--dataset=wds/shapes", "--model", str(sets)],
    ]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{PACKAGES}"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1]) == [0, 0, 1], done.stderr[-4000:]
    assert done.stderr.splitlines()[-1].startswith(f"error: --model: {sets} holds no run")

    def theirs(name, task):
        file = tmp_path / "run" / f"clip_benchmark_{name}_en_{task}.json"
        return json.loads(file.read_text())["metrics"]

    metrics = theirs("shapes", "zeroshot_classification")
    flags = [
        f"--data={sets}/shapes/test/{{0..1}}.tar",
        f"--classnames={sets}/shapes/classnames.txt",
    ]
    workdir = f"--workdir={tmp_path / 'run'}"
    found = ours(capsys, workdir, "--task=zeroshot", *flags, f"--templates={sets}/templates.txt")
    assert (found["top1"], found["top5"]) == pytest.approx(
        (metrics["acc1"], metrics["acc5"]), abs=1e-6
    )
    # Every class has one image.
    assert metrics["mean_per_class_recall"] == pytest.approx(found["top1"], abs=1e-6)
    assert 1 / 24 < found["top1"] < found["top5"]
    metrics = theirs("pairs", "zeroshot_retrieval")
    found = ours(capsys, workdir, f"--data={tiny / 'pairs.jsonl'}")
    for k in (1, 5, 10):
        assert metrics[f"text_retrieval_recall@{k}"] == pytest.approx(found[f"i2t_r{k}"], abs=1e-6)
        assert metrics[f"image_retrieval_recall@{k}"] == pytest.approx(found[f"t2i_r{k}"], abs=1e-6)
