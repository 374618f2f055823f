"""Workflows, issue templates and the citation, by the public schemas in check-jsonschema."""

import pathlib
import re
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).parent.parent
GITHUB = ROOT / ".github"
FILES = [
    *((path, "github-workflows") for path in sorted((GITHUB / "workflows").glob("*.yml"))),
    *(
        (path, "github-issue-config" if path.stem == "config" else "github-issue-forms")
        for path in sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml"))
    ),
    (ROOT / "CITATION.cff", "citation-file-format"),
]


@pytest.mark.parametrize(("path", "schema"), FILES, ids=[path.name for path, _ in FILES])
def test_it_fits_the_schema(path, schema):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run(
        [*command, "--default-filetype=yaml", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def steps(name):
    jobs = yaml.safe_load((GITHUB / f"workflows/{name}.yml").read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def test_there_is_a_lane_for_each_file_of_constraints():
    (lane,) = yaml.safe_load((GITHUB / "workflows/tests.yml").read_text())["jobs"].values()
    lanes = {f"py{python.replace('.', '')}" for python in lane["strategy"]["matrix"]["python"]}
    assert lanes == {path.stem for path in (ROOT / "constraints").glob("*.txt")}


def test_commands_of_workflows_exist():
    runs = [
        step["run"]
        for name in ("tests", "docs", "publish")
        for step in steps(name)
        if "run" in step
    ]
    scripts = [word for run in runs for word in re.findall(r"launch/\w+\.sh", run)]
    assert scripts and all((ROOT / script).is_file() for script in scripts)


@pytest.mark.parametrize(("tag", "code"), [("v{}", 0), ("v{}.1", 1), ("{}", 0)])
def test_publishing_stops_where_the_tag_is_not_the_version(tag, code):
    import ape_jax

    (check,) = (
        step["run"] for step in steps("publish") if "GITHUB_REF_NAME" in step.get("run", "")
    )
    env = {"GITHUB_REF_NAME": tag.format(ape_jax.__version__), "PATH": "/usr/bin:/bin"}
    assert subprocess.run(["bash", "-c", check], cwd=ROOT, env=env, check=False).returncode == code
