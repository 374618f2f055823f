"""How bytes come from a url: httpx for the web, fsspec for all else."""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

_BLOCK = 2**20
_SECONDS = 30.0  # Until a place that sends nothing counts as one that does not answer.
# What gives fsspec a protocol, where its own words name no package.
_PACKAGES = {
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
    **dict.fromkeys(("oci",), "ocifs"),
    **dict.fromkeys(("smb",), "smbprotocol"),
    **dict.fromkeys(("webdav",), "webdav4"),
    **dict.fromkeys(("hf",), "huggingface_hub"),
}


class Gone(Exception):
    """The place answers, and the file is not there or not given."""


class Unreachable(Exception):
    """The place does not answer, or breaks off.

    Args:
      reason: one phrase.
      final: whether trying again is of no use, as where a package is missing.
    """

    def __init__(self, reason: str, final: bool = False):
        super().__init__(reason)
        self.final = final


def version(url: str) -> tuple[str, int | None]:
    """What tells one version of a file from another, and its size in bytes where it is known.

    Raises:
      Gone, Unreachable: see there.
    """
    if _is_web(url):
        with _web(url) as response:
            found = response.headers
            size = found.get("content-length", "")
            encoded = found.get("content-encoding", "identity") != "identity"
            known = [found.get(name, "") for name in ("etag", "last-modified")]
            return "\n".join([*known, size]), int(size) if size.isdigit() and not encoded else None
    with _errors(url):
        system, path = _filesystem(url)
        info = system.info(path)
        if info.get("type") == "directory":
            raise Gone("it is a folder; write its files, as in folder/*.tar")
        names = ("etag", "ETag", "mtime", "LastModified", "last_modified", "updated", "blob_id")
        # memory:// has the time of its making alone.
        known = [str(info[name]) for name in (*names, "created") if info.get(name) is not None]
        return "\n".join([*known, str(info.get("size"))]), info.get("size")


def blocks(url: str) -> Iterator[bytes]:
    """The content of a file, a block at a time.

    Raises:
      Gone, Unreachable: see there.
    """
    if _is_web(url):
        with _web(url) as response:
            yield from _web_blocks(response)
        return
    with _errors(url):
        system, path = _filesystem(url)
        with system.open(path, "rb") as f:
            while block := f.read(_BLOCK):
                yield block


def matching(pattern: str) -> list[str]:
    """The urls of the files that match a pattern, sorted.

    Raises:
      Gone: nothing on the web can be listed.
      Unreachable: see there.
    """
    if _is_web(pattern):
        raise Gone("the web has no lists of files; write {00000..00009} for *")
    with _errors(pattern):
        system, path = _filesystem(pattern)
        return sorted(system.unstrip_protocol(found) for found in system.glob(path))


def _is_web(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


@functools.cache
def _client() -> httpx.Client:
    """One for all threads: connections to a host are used again."""
    import httpx

    agent = {"user-agent": "ape_jax"}
    return httpx.Client(follow_redirects=True, timeout=_SECONDS, headers=agent)


@contextlib.contextmanager
def _web(url: str) -> Iterator[httpx.Response]:
    import httpx

    try:
        with _client().stream("GET", url) as response:
            if response.status_code in (408, 425, 429) or response.status_code >= 500:
                raise Unreachable(f"{_host(url)} answers {response.status_code}")
            if response.status_code >= 400:
                raise Gone(f"{_host(url)} answers {response.status_code}")
            yield response
    except (httpx.InvalidURL, ValueError) as e:
        raise Gone(f"it is no url: {_one_line(e)}") from e
    except (httpx.HTTPError, OSError) as e:
        raise Unreachable(f"{_host(url)} does not answer: {_one_line(e)}") from e


def _web_blocks(response: httpx.Response) -> Iterator[bytes]:
    yield from response.iter_bytes(_BLOCK)


def _filesystem(url: str) -> tuple[Any, str]:
    import fsspec

    protocol = url.split("://", 1)[0].lower()
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as e:
        package = _PACKAGES.get(protocol)
        remedy = f"pip install {package}" if package else f"install what it needs: {_one_line(e)}"
        raise Unreachable(f"{protocol}:// needs a package that is not there; {remedy}", True) from e
    except ValueError as e:
        raise Unreachable(f"nothing here reads {protocol}://: {_one_line(e)}", True) from e


@contextlib.contextmanager
def _errors(url: str) -> Iterator[None]:
    """Turns what file systems raise, each its own, into the two kinds of this file."""
    try:
        yield
    except (Gone, Unreachable):
        raise
    except (FileNotFoundError, IsADirectoryError, PermissionError) as e:
        raise Gone(_one_line(e)) from e
    except (socket.gaierror, TimeoutError, ConnectionError) as e:
        raise Unreachable(_one_line(e)) from e
    except Exception as e:  # Of gcsfs, s3fs, huggingface_hub, and what these are built on.
        raise Unreachable(_one_line(e)) from e


def _host(url: str) -> str:
    # Not by urllib, which refuses some of what users write.
    return url.split("/")[2] or url


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
