"""An index whose images actors embed: the bytes of one process, and what they do not take."""

import functools
import tarfile

import pytest

from ape_jax.commands import index as command
from ape_jax.errors import UserError
from ape_jax.parallel.actors import RayCluster
from ape_jax.runs import restore
from ape_jax.search import build

pytest.importorskip("ray", reason="ray is not installed (ape_jax[ray])")
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def images(tiny, tmp_path):
    """A tar of twelve images, one of them broken: actors open it for themselves."""
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "text.txt").write_text("a shape")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number, file in enumerate(sorted(tiny.glob("*.png"))[:12]):
            tar.add(tmp_path / "broken.png" if number == 6 else file, f"{number:02d}.png")
            tar.add(tmp_path / "text.txt", f"{number:02d}.txt")
    return tmp_path / "a.tar"


def indexed(images, run, out, cluster=None):
    """What is found and said, and the files of the index."""
    questions = command.Questions(texts=(), images=(), k=1, exact=True)
    table = command.Table(path="", dtype="float32")
    found = command.index(str(run), str(images), str(out), questions, table, cluster)
    files = (path for path in out.rglob("*") if path.is_file())
    return found, {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_actors_give_the_index_of_one_process(ray_here, images, tiny_run, tmp_path, monkeypatch):
    one = functools.partial(restore.mesh_lib.make_mesh, 1)
    monkeypatch.setattr(restore.mesh_lib, "make_mesh", one)
    monkeypatch.setattr(build, "_CHUNK", 5)
    (counts, _), expected = indexed(images, tiny_run, tmp_path / "process")
    (found, said), files = indexed(images, tiny_run, tmp_path / "ray", RayCluster(actors=1))
    assert found == counts and (found["encoded"], found["unreadable"]) == (11, 1)
    assert files == expected and "06" in said


def test_a_run_that_is_another_on_a_machine_is_one_sentence(tiny_run):
    identity = command.search.identity(restore.restore(tiny_run)) | {"text tower": "other"}
    with pytest.raises(UserError, match=r"--workdir: .* has another text tower on .* than here"):
        command.same_encoder(str(tiny_run), identity)
