"""Filling the cache from the command line: once, again, and after being killed."""

import json
import os
import re
import subprocess
import sys

import pytest

from ape_jax import config as config_lib
from ape_jax import extract
from ape_jax.errors import UserError
from ape_jax.features import jobs
from ape_jax.terminal import command
from ape_jax.training import extraction, loop

# Starts the command again and again in forks, which saves importing everything anew, and kills each
# but the last at a random moment after it began to encode. Every shard that is begun is noted.
KILLED = """
import os, random, signal, sys, time
from ape_jax import extract
from ape_jax.features import jobs
from ape_jax.storage import atomic
from ape_jax.terminal import command

config, root, kills, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
jobs.SHARD_VIEWS, jobs.SHARD_CAPTIONS = 8, 8
begun = os.path.join(root, "begun")

def note(encode):
    def noted(self, block, report):
        with open(begun, "a") as file:
            file.write(f"{self.what} {block.start}\\n")
        return encode(self, block, report)
    return noted

def slowly(step):
    def slow(*arguments):
        time.sleep(0.02)
        result = step(*arguments)
        time.sleep(0.02)
        return result
    return slow

jobs.ImageJob.encode = note(jobs.ImageJob.encode)
jobs.CaptionJob.encode = note(jobs.CaptionJob.encode)
atomic.write, atomic.Path.replace = slowly(atomic.write), slowly(atomic.Path.replace)

def size():
    return os.path.getsize(begun) if os.path.exists(begun) else 0

def start():
    pid = os.fork()
    if not pid:
        command.run(extract.main, ["extract", f"--config={config}", f"--workdir={root}/work"])
        os._exit(0)
    return pid

draw = random.Random(seed)
for _ in range(kills):
    before, pid = size(), start()
    while size() == before and not os.waitpid(pid, os.WNOHANG)[0]:
        time.sleep(0.002)
    time.sleep(draw.uniform(0, 1.2 / kills))
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
    print("SIGKILL", flush=True)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(start(), 0)[1]))
"""


def write_config(config, folder):
    flat = json.dumps(config_lib.flatten(config_lib.resolve(config)))
    (folder / "flat.json").write_text(flat)
    (folder / "config.py").write_text(
        "import json, ml_collections\n"
        "from ape_jax import config\n"
        "def get_config(arg=''):\n"
        f"    flat = json.load(open({str(folder / 'flat.json')!r}))\n"
        "    return ml_collections.ConfigDict(config.unflatten(flat))\n"
    )
    return folder / "config.py"


def tree(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def views_config(tiny_config, tmp_path):
    tiny_config.cache.views, tiny_config.augment.flip = 2, True
    tiny_config.cache.dir = str(tmp_path / "features")
    return tiny_config


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    views_config, tmp_path, kills, monkeypatch
):
    monkeypatch.setattr(jobs, "SHARD_VIEWS", 8)
    monkeypatch.setattr(jobs, "SHARD_CAPTIONS", 8)
    views_config.cache.dir = str(tmp_path / "whole")
    summary = extraction.extract(config_lib.resolve(views_config), tmp_path / "run")
    views_config.cache.dir = str(tmp_path / "cut")
    config = write_config(views_config, tmp_path)
    arguments = [str(config), str(tmp_path), str(kills), "0"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("SIGKILL") == kills
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")
    begun = (tmp_path / "begun").read_text().splitlines()
    shards = sum(c["shards"] for c in summary["caches"] if c["encoded"])
    assert len(set(begun)) == shards
    # A kill costs the shard in work and no other.
    assert shards < len(begun) <= shards + kills


def run_command(config, workdir, capsys):
    with pytest.raises(SystemExit) as stop:
        command.run(extract.main, ["extract", f"--config={config}", f"--workdir={workdir}"])
    assert not stop.value.code
    return json.loads((workdir / "extract.json").read_text()), capsys.readouterr()


def test_command_fills_what_training_reads_and_the_second_time_nothing(
    views_config, tmp_path, capsys, monkeypatch
):
    config = write_config(views_config, tmp_path)
    first, printed = run_command(config, tmp_path / "run", capsys)
    # Features to evaluate on are kept in f32, so the two sets share nothing though they are one.
    assert [(c["what"], c["items"], c["encoded"]) for c in first["caches"]] == [
        ("training images", 24, 48),
        ("training captions", 48, 48),
        ("train images", 24, 24),
        ("train captions", 48, 48),
    ]
    assert re.search(r"\| training images +\| +24 \|", printed.out)
    assert "48 views -> 0.0 MB in" in printed.err
    before = tree(tmp_path / "features")
    again, printed = run_command(config, tmp_path / "run", capsys)
    assert all(cache["encoded"] == 0 for cache in again["caches"]) and "->" not in printed.err
    assert tree(tmp_path / "features") == before
    views_config.cache.missing = "error"
    monkeypatch.setattr(jobs.ImageJob, "encode", None)
    monkeypatch.setattr(jobs.CaptionJob, "encode", None)
    summary = loop.train_and_evaluate(config_lib.resolve(views_config), tmp_path / "training")
    assert summary["step"] == 8


def test_command_without_a_directory_or_anything_to_encode_says_so(tiny_config, tmp_path):
    tiny_config.cache.dir = "none"
    with pytest.raises(UserError, match=r"config.cache.dir: 'none'"):
        extraction.extract(config_lib.resolve(tiny_config), tmp_path)
    tiny_config.cache.dir = str(tmp_path / "features")
    tiny_config.image.tune = tiny_config.text.tune = "full"
    tiny_config.image.standardize = False
    with pytest.raises(UserError, match=r"config.image.tune: both towers are trained"):
        extraction.extract(config_lib.resolve(tiny_config), tmp_path)


def test_wrong_config_fails_before_anything_is_encoded(views_config, tmp_path, monkeypatch):
    monkeypatch.setattr(extraction.frontier, "all_parts", None)
    views_config.optim.lr_mults = (("nothing", 2.0),)
    with pytest.raises(UserError, match=r"optim\.lr_mults"):
        extraction.extract(config_lib.resolve(views_config), tmp_path)


def test_training_without_a_cache_may_be_forbidden(tiny_config, tmp_path):
    tiny_config.cache.missing = "error"
    with pytest.raises(UserError, match=r"cache.missing: there is no cache of the images of"):
        loop.train_and_evaluate(config_lib.resolve(tiny_config), tmp_path)
