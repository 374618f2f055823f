"""`torch:timm:`: features are those of timm's own model and transform.

timm lies in an environment of its own, because it brings torchvision, with which transformers
prepares images otherwise: in the directory that $APE_JAX_TIMM names, or in `.venv/judges`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PLACES = [os.environ.get("APE_JAX_TIMM", ""), Path(sys.prefix) / "judges"]
TIMM = next((str(place) for place in PLACES if place and (Path(place) / "timm").is_dir()), None)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What `in_timm.py` has found, by architecture."""
    if TIMM is None:
        pytest.skip("timm is neither in $APE_JAX_TIMM nor in .venv/judges")
    path = os.pathsep.join([str(ROOT), TIMM])
    environment = {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(Path(__file__).parent / "in_timm.py")]
    out = subprocess.run(
        [*command, str(tmp_path_factory.mktemp("timm"))],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
    )
    assert out.returncode == 0, out.stderr[-2000:]
    return json.loads(out.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("convnext_atto", 0), ("swin_tiny_patch4_window7_224", 0), ("vit_tiny_patch16_224", 1)],
)
def test_pooled_features_are_those_of_timm(found, name, prefix):
    assert found[name]["own"] == 0.0
    assert found[name]["prefix"] == prefix
    assert found[name]["mean"] == [2, found[name]["tokens"][2]]
