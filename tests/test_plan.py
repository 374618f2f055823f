"""The command, compiling for TPUs for real."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# Apart from the environment's packages, where every other command would find a TPU to start.
COMPILERS = pathlib.Path(sys.prefix)


def with_compiler(folder):
    """What brings a compiler in; `launch/test.sh` installs it."""
    place = COMPILERS / folder
    assert place.is_dir(), f"{place} is missing; launch/test.sh makes it"
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{place}", "XLA_FLAGS": ""}


@pytest.fixture(scope="module")
def environment():
    return with_compiler("tpu")


@pytest.fixture(scope="module")
def for_gpus():
    return with_compiler("gpu")


@pytest.fixture
def plan(tiny, environment):
    """Runs the command on a small APE, and gives exit code, standard output and the last line."""

    def run(*flags, env=environment):
        config = f"ape:image={tiny / 'image'},text={tiny / 'text'},pairs=none.jsonl"
        command = [sys.executable, "-m", "ape_jax.plan", "--config", config, "--longest=8", *flags]
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False
        )
        return done.returncode, done.stdout, (done.stderr.strip().splitlines() or [""])[-1]

    return run


def test_a_step_that_fits_is_measured(plan):
    code, out, error = plan("--topology=v5e:2x2", "--batch=64", "--json", "--pairs=1000")
    assert code == 0, error
    made = json.loads(out)
    step = made["step"]
    assert step["fits"] and made["chips"] == 4 and step["rows"] == 64
    assert sum(step["arguments"].values()) < step["peak"] < made["device_hbm"]
    assert step["traffic"]["all-reduce"] > 0 and step["seconds"] > 0 and step["largest"]
    assert set(made["encoding"]) == {"images", "captions"} and made["encoding_hours"] > 0


def test_a_step_that_does_not_fit_exits_with_the_reason(plan):
    code, out, error = plan(
        "--topology=v5e:2x2", "--config.train.batch=67108864", "--config.text.head.width=4096"
    )
    assert code == 1 and "does not fit" in out
    assert error.startswith("error: the training step does not fit on v5e:2x2: ")
    assert "exceeds available HBM" in error and "a smaller train.batch or text.head" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--topology=v5e:3x3"], "error: --topology: there is no slice v5e:3x3"),
        (["--topology=v5e:2x2", "--batch=6"], "error: config.train.batch: 6 does not divide"),
    ],
)
def test_what_cannot_be_planned_is_refused(plan, flags, message):
    code, _, error = plan(*flags)
    assert code == 1 and error.startswith(message)


@pytest.mark.parametrize(
    ("topology", "extra"),
    [("v5e:2x2", "plan-tpu"), ("h100:2", "plan-gpu")],
)
def test_without_the_compiler_it_says_what_to_install(plan, environment, topology, extra):
    bare = {**environment, "PYTHONPATH": str(ROOT)}
    code, _, error = plan(f"--topology={topology}", env=bare)
    assert code == 1 and f'pip install "ape_jax[{extra}]"' in error


def test_a_step_on_gpus_is_measured(plan, for_gpus):
    code, out, error = plan("--topology=h100:2", "--batch=64", "--json", env=for_gpus)
    assert code == 0, error
    made = json.loads(out)
    step = made["step"]
    assert step["fits"] and made["chips"] == 2 and step["largest"]
    assert sum(step["arguments"].values()) < step["peak"] < 0.75 * made["device_hbm"]
    assert step["traffic"]["all-reduce"] > 0 and step["memory_traffic"] > 0


@pytest.mark.slow
def test_a_step_that_gpus_have_no_memory_for_exits_with_the_reason(plan, for_gpus):
    flags = ("--topology=h100:2", "--batch=262144", "--config.text.head.width=16384")
    code, out, error = plan(*flags, env=for_gpus)
    assert code == 1 and "does not fit" in out
    assert "does not fit on h100:2: it needs " in error and "of 80 JAX takes 60" in error


FUSED = """
from ape_jax.planner import program, targets
targets.leave_this_machine()
import sys
import jax, jax.numpy as jnp
import jax._src.cudnn.fused_attention_stablehlo as cudnn
from ape_jax import towers
from ape_jax.features.encode import FrozenTower
from ape_jax.nn import fused_attention
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.towers.tower import Tower
cudnn.check_cudnn_version = lambda: 91000  # There is none here, and none is called.
fused_attention.available = lambda devices: sys.argv[1] == "fused"
fused_attention.refusal = lambda: ""
where = targets.parse("h100:2")
mesh = where.mesh()
width = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1}
shape = {"model_type": "vit", **width, "intermediate_size": 64, "image_size": 32}
module, config = towers.build(shape, kind="image", dtype="bfloat16")
tower = Tower(kind="image", module=module, config=config, prepare=None, spec="", digest="")
whole, rows = mesh_lib.replicated(mesh), mesh_lib.over_batch(mesh)
of = lambda x, where: jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=where)
params = jax.tree.map(lambda x: of(x, whole), towers.abstract_params(module))
reader = FrozenTower(tower=tower, params=params, mesh=mesh, batch=8, pooling="cls")
images = {"image": of(jnp.zeros((8, 32, 32, 3)), rows)}
lowered = reader.program.trace(params, images).lower(lowering_platforms=("cuda",))
text = lowered.compile(where.compiler_options).as_text()
print(text.count('custom_call_target="__cudnn$fmhaSoftmax"'), program.read(text).traffic())
"""


def test_attention_of_images_is_cudnn_s_on_gpus_and_each_has_its_rows(for_gpus):
    def compiled(how):
        command = [sys.executable, "-c", FUSED, how]
        done = subprocess.run(
            command, cwd=ROOT, env=for_gpus, capture_output=True, text=True, timeout=300, check=True
        )
        return done.stdout.strip().split(" ", 1)

    (calls, sent), (without, sent_without) = compiled("fused"), compiled("xla")
    assert (calls, without) == ("1", "0")  # The blocks are one, in a loop.
    assert sent == sent_without
