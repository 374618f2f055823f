"""The launchers: what they would do, what they refuse, and their syntax."""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml

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
