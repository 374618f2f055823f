"""Processes that differ end before the first step, all with the sentence that says in what."""

import json
import shutil

import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from ape_jax import config as config_lib
from tests.parallel.test_peers import ends

# A command on a config file of this process.
COMMAND = """
import json, os, sys
import jax
from absl import flags as absl_flags
from ape_jax.terminal import flags, session
absl_flags.FLAGS.mark_as_parsed()
flags.reset()
name, file, workdir = sys.argv[1:]

def main():
    from ape_jax import config as config_lib
    from ape_jax.studies import study
    from ape_jax.studies.config import StudyConfig
    from ape_jax.training import extraction, loop
    flat = json.load(open(file.replace("#", os.environ["JAX_PROCESS_ID"])))
    kind = StudyConfig if name == "study" else config_lib.Config
    flat |= {"study.methods": ["few_pairs"], "study.seeds": 1} if name == "study" else {}
    of = {"train": loop.train_and_evaluate, "extract": extraction.extract}
    run = of.get(name, study.run_study)
    run(config_lib.resolve(config_lib.unflatten(flat), kind), workdir)
    print("came to its end")

session.run(main, name, alone=True)
"""


def config(folder, flat, **other):
    return {**flat, **other}, {}


def other_lr(folder, flat):
    return config(folder, flat, **{"optim.lr": 9e-3})


def other_seed(folder, flat):
    return config(folder, flat, seed=7)


def other_caption(folder, flat):
    text = (folder / "pairs.jsonl").read_text()
    (folder / "pairs.jsonl").write_text(text.replace("a red circle", "the red circle"))
    return flat, {}


def other_evaluation(folder, flat):
    text = (folder / "pairs.jsonl").read_text()
    (folder / "held_out.jsonl").write_text(text.replace("a red circle", "the red circle"))
    return config(folder, flat, **{"data.eval": {"train": str(folder / "held_out.jsonl")}})


def other_image(folder, flat):
    Image.new("RGB", (40, 36), "purple").save(folder / "red-circle.png")
    return flat, {}


def other_weights(folder, flat):
    file = folder / "image/model.safetensors"
    tensors = load_file(file)
    name = max(tensors)
    tensors[name] = tensors[name] + 1
    save_file(tensors, file, {"format": "pt"})
    return flat, {}


def other_tokenizer(folder, flat):
    file = folder / "text/tokenizer.json"
    file.write_text(file.read_text().replace('"the"', '"thee"'))
    return flat, {}


def other_preparation(folder, flat):
    file = folder / "image/preprocessor_config.json"
    found = json.loads(file.read_text())
    file.write_text(json.dumps({**found, "image_mean": [0.4, 0.5, 0.5]}))
    return flat, {}


def other_package(folder, flat):
    made = folder / "packages/optax-9.9.dist-info"
    made.mkdir(parents=True)
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: optax\nVersion: 9.9\n")
    return flat, {"PYTHONPATH": str(folder / "packages")}


def other_precision(folder, flat):
    return flat, {"JAX_DEFAULT_MATMUL_PRECISION": "bfloat16"}


QUICK = [
    ("train", other_lr, "config.optim.lr: 0.003 in process 0, 0.009 in process 1"),
    ("train", other_image, "the contents of data.pairs"),
    ("extract", other_weights, "the image tower"),
]
SLOW = [
    ("train", other_seed, "config.seed: 0 in process 0, 7 in process 1"),
    ("train", other_caption, "the contents of data.pairs"),
    ("train", other_evaluation, "the contents of data.eval.train"),
    ("train", other_weights, "the image tower"),
    ("train", other_tokenizer, "the tokenizer"),
    ("train", other_preparation, "the image preparation"),
    ("train", other_package, "the version of optax"),
    ("train", other_precision, "jax_default_matmul_precision"),
    ("extract", other_lr, "config.optim.lr"),
    ("extract", other_image, "the contents of data.pairs"),
    ("study", other_lr, "config.optim.lr"),
    ("study", other_caption, "the contents of data.pairs"),
    ("study", other_weights, "the image tower"),
]


def started(tiny, tiny_config, folder, change, count=2):
    """A folder with files and config for each of so many processes, the last of them changed."""
    tiny_config.optim.lr, tiny_config.text.head.depth = 3e-3, 2
    extra = []
    for index in range(count):
        place = folder / f"of-{index}"
        shutil.copytree(tiny, place)
        text = json.dumps(config_lib.flatten(config_lib.resolve(tiny_config)))
        flat, env = json.loads(text.replace(str(tiny), str(place))), {}
        if index == count - 1:
            flat, env = change(place, flat)
        extra.append(env)
        (folder / f"config-{index}.json").write_text(json.dumps(flat))
    return folder / "config-#.json", extra


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [*QUICK, *(pytest.param(*row, marks=pytest.mark.slow) for row in SLOW)],
)
def test_what_differs_is_named_by_all(name, change, expected, tiny, tiny_config, tmp_path):
    file, each = started(tiny, tiny_config, tmp_path, change)
    found = ends(2, COMMAND, name, file, tmp_path / "run", timeout=60, each=each)
    said = [
        [line for line in stderr.splitlines() if line.startswith("error:")]
        for _, _, stderr in found
    ]
    assert [code for code, _, _ in found] == [1, 1], found
    assert said[0] == said[1] and len(said[0]) == 1
    assert said[0][0].startswith(f"error: the processes of this run differ in {expected}")
    assert all("Traceback" not in stderr for _, _, stderr in found)
    assert not (tmp_path / "run/checkpoints").exists()


@pytest.mark.slow
def test_four_processes_of_which_one_differs(tiny, tiny_config, tmp_path):
    file, each = started(tiny, tiny_config, tmp_path, other_lr, count=4)
    found = ends(4, COMMAND, "train", file, tmp_path / "run", timeout=60, each=each)
    (line,) = {s for _, _, stderr in found for s in stderr.splitlines() if s.startswith("error:")}
    assert line.startswith(
        "error: the processes of this run differ in config.optim.lr: 0.003 in processes 0, 1 and "
        "2, 0.009 in process 3"
    )


@pytest.mark.slow
def test_the_same_files_in_other_places_are_the_same(tiny, tiny_config, tmp_path):
    tiny_config.train.steps = 2
    file, _ = started(tiny, tiny_config, tmp_path, lambda folder, flat: (flat, {}))
    for code, out, stderr in ends(2, COMMAND, "train", file, tmp_path / "run", timeout=120):
        assert code == 0 and "came to its end" in out, stderr


# Parameters that go apart on one process, as a machine that computes wrongly lets them.
APART = """
import dataclasses
import numpy as np
import jax
from ape_jax.training import loop
real = loop.Loop.take
def take(self, span, block):
    if jax.process_index() == 1:
        def off(x):
            parts = [jax.device_put(np.asarray(s.data) + 1, s.device) for s in x.addressable_shards]
            return jax.make_array_from_single_device_arrays(x.shape, x.sharding, parts)
        off_by_one = jax.tree.map(off, self._state.trainable)
        self._state = dataclasses.replace(self._state, trainable=off_by_one)
    return real(self, span, block)
loop.Loop.take = take
"""


@pytest.mark.slow
def test_parameters_that_go_apart_are_noticed_at_the_checkpoint(tiny, tiny_config, tmp_path):
    file, _ = started(tiny, tiny_config, tmp_path, lambda folder, flat: (flat, {}))
    found = ends(2, APART + COMMAND, "train", file, tmp_path / "run", timeout=100)
    lines = [
        [line for line in stderr.splitlines() if line.startswith("error:")]
        for _, _, stderr in found
    ]
    assert [code for code, _, _ in found] == [1, 1], found
    assert lines[0] == lines[1] and len(lines[0]) == 1
    assert lines[0][0].startswith("error: the processes of this run differ in trainable[")
    assert "has gone apart by step 4, of which nothing is saved" in lines[0][0]
