"""The launchers: what they would do, what they refuse, and their syntax."""

import importlib.util
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import venv
import zipfile

import kubernetes_validate
import pytest
import yaml

from tests.accelerator import parts

LAUNCH = pathlib.Path(__file__).parent.parent / "launch"
TRAIN = ["python", "-m", "ape_jax.main", "--workdir", "a b"]


def run(script, *arguments, **env):
    return subprocess.run(
        [LAUNCH / script, *arguments],
        env={**os.environ, "XLA_FLAGS": "", **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def planned(script, *arguments):
    done = run(script, "--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines()]


def test_nothing_but_this_package_is_installed_without_a_hash():
    text = (LAUNCH / "setup.sh").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if "-m pip install" in line]
    others = [line for line in lines if "--require-hashes" not in line]
    assert len(lines) == 2 and len(others) == 1
    assert others[0].endswith("--no-deps --no-build-isolation -e .")


def test_fake_devices():
    (line,) = planned("local_devices.sh", "8", *TRAIN)
    assert line[0] == "JAX_PLATFORMS=cpu" and line[2:] == TRAIN
    assert "--xla_force_host_platform_device_count=8" in line[1]
    script = "import jax; print(jax.device_count())"
    assert run("local_devices.sh", "3", sys.executable, "-c", script).stdout.strip() == "3"


def test_processes():
    lines = planned("local_processes.sh", "2", "4", *TRAIN)
    assert [line[-len(TRAIN) :] for line in lines] == [TRAIN, TRAIN]
    assert [f"JAX_PROCESS_ID={i}" in line for i, line in enumerate(lines)] == [True, True]
    assert len({word for line in lines for word in line if "COORDINATOR" in word}) == 1


def test_the_first_process_that_fails_ends_the_others():
    script = 'if [ "$JAX_PROCESS_ID" = 1 ]; then exit 3; fi; sleep 50'
    done = run("local_processes.sh", "3", "1", "bash", "-c", script)
    assert done.returncode == 3 and "ended with code 3; ending the others" in done.stderr


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("true", 0),
        ("sleep 0.$JAX_PROCESS_ID", 0),  # One after the other.
        ("sleep 0.$((3 - JAX_PROCESS_ID))", 0),
        ("sleep 0.$JAX_PROCESS_ID; exit 5", 5),  # All fail by themselves.
        # A notice to the launcher is passed on.
        ("trap 'exit 0' TERM; sleep 0.$JAX_PROCESS_ID; kill -TERM $PPID; sleep 2 & wait", 0),
    ],
)
def test_processes_that_end_by_themselves_end_without_a_word(script, code):
    done = run("local_processes.sh", "3", "1", "bash", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_slurm():
    (line,) = planned("slurm.sh", "-N", "4", "-g", "2", "-t", "1:00:00", "-p", "gpu", *TRAIN)
    assert line[0] == "sbatch"
    assert {"--nodes=4", "--gpus-per-node=2", "--time=1:00:00", "--partition=gpu"} < set(line)
    assert "--signal=TERM@120" in line and "--ntasks-per-node=1" in line
    wrapped = shlex.split(line[line.index("--wrap") + 1])
    assert wrapped == ["srun", "--kill-on-bad-exit=1", *TRAIN]


def test_tpu_vm():
    flags = ["--delete", "-n", "mine", "-z", "zone", "-a", "v4-32", "-w", "runs/x", "--", *TRAIN]
    lines = planned("tpu_vm.sh", *flags)
    verbs = [line[4] for line in lines if line[0] == "gcloud"]
    assert verbs == ["create", "scp", "ssh", "ssh", "ssh", "scp", "delete"]
    assert "--accelerator-type=v4-32" in lines[0]
    commands = [word for line in lines for word in line if word.startswith("--command=")]
    assert shlex.split(commands[-1])[-len(TRAIN) :] == TRAIN
    assert all("--zone=zone" in line for line in lines if line[0] == "gcloud")


@pytest.fixture
def bare(tmp_path):
    """`bare("jax==9.9")`: a Python that has these packages, by their names, and no other."""
    venv.create(tmp_path / "bare", with_pip=False)

    def make(*packages):
        (site,) = (tmp_path / "bare").glob("lib/python*/site-packages")
        for name, version in (package.split("==") for package in packages):
            folder = site / f"{name}-{version}.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
        return {"PYTHON": str(tmp_path / "bare/bin/python"), "PYTHONPATH": ""}

    return make


def test_the_parts_for_accelerators_are_listed_without_any_package(bare):
    done = run("accelerator.sh", "--list", **bare())
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == list(parts.PARTS)


def test_a_part_that_there_is_none_of_is_refused():
    done = run("accelerator.sh", "--device=cpu", "quick")
    assert done.returncode == 2 and done.stderr.startswith("error: there is no part 'quick'")


@pytest.mark.parametrize(
    ("packages", "message"),
    [
        ([], "has no jax; install the one for your device"),
        (["jax==9.9", "torch==9.9"], "lacks absl-py, array-record, clu, .*; bring them with --whe"),
    ],
)
def test_what_a_python_lacks_for_accelerators_is_one_sentence(bare, packages, message):
    done = run("accelerator.sh", "--device", "cpu", "correct", **bare(*packages))
    assert done.returncode == 2 and re.search(message, done.stderr), done.stderr
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1


def test_an_accelerator_that_is_not_there_is_named():
    done = run("accelerator.sh", "--device", "tpu", "fast/card")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert re.match(r"error: --device tpu: jax \S+ finds none here \(.*\); install", done.stderr)


def test_of_a_folder_of_wheels_only_what_is_lacking_is_installed(tmp_path):
    for name in ("numpy", "wholly_unknown"):
        with zipfile.ZipFile(tmp_path / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            about = f"{name}-1.0.dist-info"
            wheel.writestr(f"{name}/__init__.py", "")
            wheel.writestr(
                f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0"
            )
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")
    target = tmp_path / "target"
    command = [sys.executable, LAUNCH / "wheels.py", "install", tmp_path, target]
    subprocess.run(command, check=True, timeout=60)
    assert (target / "wholly_unknown").is_dir() and not (target / "numpy").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--wheels", "/nowhere"], "--wheels: /nowhere is no folder; fill one with --fetch-wheels"),
        (["--wheels", str(LAUNCH)], "there is no wheel in"),
        (["--fetch-wheels", "/tmp/x", "--python", "2.7"], "--python: expected 3.11 or later"),
        (["--fetch-wheels", "/tmp/x", "--there", "/no"], "--there: /no is no file"),
        (["--device", "ipu"], "--device: expected gpu, tpu or cpu, found 'ipu'"),
    ],
)
def test_what_the_script_for_accelerators_does_not_understand_is_refused(arguments, message):
    done = run("accelerator.sh", *arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_wheels_are_fetched_for_what_an_image_with_jax_and_torch_lacks():
    path = LAUNCH / "wheels.py"
    wheels = importlib.util.module_from_spec(
        spec := importlib.util.spec_from_file_location("", path)
    )
    spec.loader.exec_module(wheels)
    there = set(wheels.THERE.split())
    lacking = set(wheels.base(wheels.lane("3.12"))) - there
    assert {"clu", "grain", "ml-collections", "array-record", "tensorboardx"} <= lacking
    assert not {"jax", "jaxlib", "numpy", "pyarrow", "torch"} & lacking
    freeze = "jax==0.11.2\nMarkupSafe==3.0\nmine @ file:///mine\n-e git+x#egg=own\n# a comment\n"
    assert list(wheels.names_of(freeze)) == ["jax", "markupsafe", "mine", "own"]


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("local_devices.sh", [], "expected [--dry-run] N COMMAND..."),
        ("local_devices.sh", ["x", "true"], "N is 'x'"),
        ("local_processes.sh", ["2", "0", "true"], "'0' is not a number"),
        ("slurm.sh", ["-N", "2"], "expected a command"),
        ("slurm.sh", ["-N", "x", "true"], "'x' is not a number"),
        ("tpu_vm.sh", ["-n", "mine"], "expected [--dry-run]"),
        ("tpu_vm.sh", ["--mine"], "'--mine' is not known"),
    ],
)
def test_what_is_not_understood_is_refused(script, arguments, message):
    done = run(script, *arguments)
    assert done.returncode == 2 and message in done.stderr


def test_where_the_tool_is_missing_it_is_named(tmp_path):
    for tool in ("bash", "dirname"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    for script, tool in (("slurm.sh", "sbatch"), ("tpu_vm.sh", "gcloud")):
        flags = {"slurm.sh": [], "tpu_vm.sh": "-n n -z z -a a -w w --".split()}[script]
        done = run(script, *flags, "true", PATH=str(tmp_path))
        assert done.returncode == 2 and f"{tool} was not found" in done.stderr


def test_shellcheck_finds_nothing():
    command = ["shellcheck", "--external-sources", "--source-path", LAUNCH, *LAUNCH.glob("*.sh")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_jobset_holds_a_valid_job():
    """The schema of a JobSet is its own; that of the job within is Kubernetes'."""
    jobset = yaml.safe_load((LAUNCH / "gke.yaml").read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (job,) = jobset["spec"]["replicatedJobs"]
    assert set(job) == {"name", "replicas", "template"}
    whole = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
    kubernetes_validate.validate({**whole, **job["template"]}, "1.33", strict=True)
    container = job["template"]["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["python", "-m", "ape_jax.main"]
