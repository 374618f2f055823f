"""Downloads npm packages of exact versions with npm, checks and reads them, and never runs them.

As with pip in `fetch`, no registry is named here: npm goes where the user's configuration sends it,
and the hashes are those of the files on the public one.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ape_jax.demo.packages import fetch
from ape_jax.errors import UserError

PACKAGES: dict[str, fetch.Archive] = {
    package.name: package
    for package in (
        fetch.Archive(
            "@iconify/json",
            "2.2.535",
            104043282,
            "1a545f86fa224d6531d8fb101dcbe83aac2b28689a21cbed6fc68318a5af4d91",
        ),
        fetch.Archive(
            "@iconify-json/noto",
            "1.2.9",
            3102958,
            "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        ),
    )
}
_ROOT = "package/"  # Every package's files lie in it.
_MAX_MEMBER = 128 << 20


def fetch_package(name: str, into: Path, *, asset: str = "icons") -> Path:
    """Downloads a pinned package with npm and checks its sha256.

    Args:
      name: a key of `PACKAGES`.
      asset: what is made of it, as `ape-jax demo --only` calls it; for messages.
      into: an existing directory in the cache that the caller removes, whatever happens.

    Returns:
      The path of the tarball.

    Raises:
      UserError: npm is missing or failed three times, or the file is not the pinned one.
    """
    package = PACKAGES[name]
    if shutil.which("npm") is None:
        raise UserError(
            f"{name} cannot be fetched because there is no npm; install Node.js, which brings it, "
            f"and run `ape-jax demo --only {asset}` again"
        )
    tarball, output = fetch.download(
        *(package, into / "npm", "npm", _npm_command, "*.tgz"),
        hopeless="code ETARGET",  # There is no such version.
        reason=_reason,
    )
    if tarball is None:
        raise UserError(
            f"npm could not download {name}@{package.version}: {_reason(output)}; check the "
            "network or npm's registry setting (`npm config get registry`) and run "
            f"`ape-jax demo --only {asset}`"
        )
    return tarball


def read_members(package: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yields (name, content) of the regular files that are wanted; writes nothing.

    Args:
      package: a tarball.
      wanted: says so of a file's name, as seen from the package's root.

    Raises:
      UserError: the tarball is damaged, or holds a file of more than 128 MiB.
    """
    try:
        with tarfile.open(package, "r|gz") as file:
            for member in file:
                name = member.name.removeprefix(_ROOT)
                if not member.isfile() or not wanted(name):
                    continue
                if member.size > _MAX_MEMBER:
                    raise UserError(
                        f"{package.name}: {name} holds {member.size} B, above {_MAX_MEMBER}"
                    )
                yield name, file.extractfile(member).read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{package.name} is damaged ({error}); clear the demo cache") from error


def _npm_command(package: fetch.Archive, folder: Path) -> list[str]:
    return [
        *("npm", "pack", f"{package.name}@{package.version}", "--pack-destination", str(folder)),
        *("--ignore-scripts", "--cache", str(folder / "cache"), "--no-update-notifier"),
        *("--fetch-retries", "1", "--loglevel", "error", "--no-progress"),
    ]


def _reason(output: str) -> str:
    """Finds npm's reason: its first error line that is no code."""
    lines = [line.partition("npm error")[2].strip() for line in output.splitlines()]
    told = [line for line in lines if line and not line.startswith(("code ", "errno ", "syscall "))]
    return told[0].rstrip(".") if told else fetch.last_line(output)
