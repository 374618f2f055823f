"""SHA256SUMS of exported directories."""

import os
import shutil
import subprocess

import pytest

from ape_jax.errors import UserError
from ape_jax.exporters.shipped import checksums_ape
from ape_jax.storage import checksums

CHECKS = [checksums.check, checksums_ape.check]


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "export"
    (root / "towers").mkdir(parents=True)
    (root / "checkpoints/4").mkdir(parents=True)
    (root / "model.safetensors").write_bytes(bytes(range(256)) * 9)
    (root / "towers/config.json").write_text("{}")
    (root / "checkpoints/4/meta").write_text("{}")
    (root / "README.md").write_text("# card")
    checksums.write(root)
    return root


@pytest.mark.parametrize("check", CHECKS)
def test_what_was_written_passes_and_the_card_may_change(folder, check):
    check(folder)
    (folder / "README.md").write_text("# another")
    (folder / "more.txt").write_text("x")
    check(folder)
    (folder / checksums.NAME).unlink()
    (folder / "towers/config.json").write_text("[]")
    check(folder)  # A directory without a list.
    checksums_ape.check("org/name")


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum")
def test_coreutils_reads_the_list(folder):
    command = ["sha256sum", "--check", "--strict", checksums.NAME]
    assert (
        subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout.count(b"OK")
        == 2
    )
    (folder / "towers/config.json").write_text("[]")
    assert subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", ["model.safetensors", "towers/config.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_any_change_is_named(folder, check, name, damage):
    check(folder)
    content = (folder / name).read_bytes()
    if damage == "gone":
        (folder / name).unlink()
    else:
        flipped = bytes([content[0] ^ 1]) + content[1:]
        (folder / name).write_bytes(content[:-1] if damage == "cut" else flipped)
    with pytest.raises((UserError, OSError), match=name) as error:
        check(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("check", CHECKS)
def test_any_bit_of_the_list_is_noticed(folder, check, rng):
    file = folder / checksums.NAME
    whole = file.read_bytes()
    for bit in rng.choice(8 * len(whole), 60, replace=False).tolist():
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        if changed.split() == whole.split():
            continue  # White space.
        file.write_bytes(changed)
        with pytest.raises((UserError, OSError)):
            check(folder)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a device", "a link to itself"])
def test_what_is_no_file_is_named_and_nothing_waits(folder, check, kind):
    path = folder / "model.safetensors"
    path.unlink()
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "a device" else path.name)
    with pytest.raises((UserError, OSError), match=r"model\.safetensors") as error:
        check(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", ["a\0b", "n" * 300, "x/" * 3000, "."])
def test_a_name_that_no_file_can_have_is_one_sentence(folder, check, name):
    (folder / checksums.NAME).write_text(f"{'0' * 64}  {name}\n")
    with pytest.raises((UserError, OSError)) as error:
        check(folder)
    assert "\n" not in str(error.value)


def test_a_name_outside_of_the_directory_is_refused(folder):
    (folder / checksums.NAME).write_text(f"{'0' * 64}  ../secret\n")
    with pytest.raises(UserError, match="SHA256SUMS:1 is damaged"):
        checksums.check(folder)
