"""The folder of uploads: bounded, the newest kept, nothing outside of it."""

import os
import threading

import numpy as np
import pytest
from PIL import Image

from ape_jax.errors import UserError
from ape_jax.pages.served.kept import Kept


def held(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_oldest_make_room(tmp_path):
    kept = Kept(tmp_path, most=1000)
    for i in range(10):
        (tmp_path / str(i)).mkdir()
        with kept.room_for(300):
            (tmp_path / str(i) / "x.png").write_bytes(bytes(300))
        os.utime(tmp_path / str(i) / "x.png", (i, i))
        assert held(tmp_path) <= 1000
    assert [i for i in range(10) if (tmp_path / str(i) / "x.png").exists()] == [7, 8, 9]


def test_files_that_are_coming_take_room_until_they_are_there(tmp_path):
    kept = Kept(tmp_path, most=1000)
    with kept.room_for(600):
        with pytest.raises(UserError, match="too many files are sent at once"), kept.room_for(600):
            pass
        with kept.room_for(400):
            pass
    with kept.room_for(1000):
        pass
    with pytest.raises(UserError), kept.room_for(1001):
        pass


def test_pictures_are_kept_once_and_within_bounds(tmp_path):
    kept = Kept(tmp_path, most=20_000)
    noise = np.random.default_rng(0).integers(0, 256, (50, 60, 60, 3), np.uint8)
    paths = {kept.save(Image.fromarray(pixels)) for pixels in noise}
    assert len(paths) == 50 and 0 < held(tmp_path) <= 20_000
    assert kept.save(Image.fromarray(noise[-1])) == kept.save(Image.fromarray(noise[-1]))


def test_the_same_picture_from_many_visitors_at_once(tmp_path):
    kept, picture, saved = Kept(tmp_path), Image.new("RGB", (300, 300), "red"), []
    threads = [threading.Thread(target=lambda: saved.append(kept.save(picture))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(saved) == 8 and [str(path) for path in tmp_path.iterdir()] == list(set(saved))


def test_a_picture_that_cannot_be_kept_is_one_sentence(tmp_path):
    kept = Kept(tmp_path / "gone")
    with pytest.raises(UserError, match="a picture cannot be kept \\(No such file"):
        kept.save(Image.new("RGB", (3, 3)))


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "{0}/../secret", "{0}/link", "{0}/none", "{0}", "\0", "{0}/" + "x" * 999],
)
def test_nothing_but_its_files_is_found(tmp_path, path):
    folder = tmp_path / "kept"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "own").write_text("own")
    kept = Kept(folder)
    assert kept.file(path.format(folder)) is None
    assert kept.file(f"{folder}/own") == folder / "own"
