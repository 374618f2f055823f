"""Files that somebody else wrote: whatever is wrong with one is one sentence.

What a user names may be a pipe, which would wait for ever, a folder, a name that no file can have,
a file that is larger than the memory, or one in which anything stands. The rest of the package
opens such files here.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
from collections.abc import Callable
from typing import Any, TypeVar, overload

from ape_jax.errors import UserError

T = TypeVar("T")
Path = str | os.PathLike[str]
Pairs = Callable[[list[tuple[str, Any]]], dict[str, Any]] | None

MAX_TEXT = 1 << 28
"""Bytes of a text or JSON file that is read as a whole; tables of pairs are read by rows."""

_MORE = 1 << 20

# Each is there on some systems only.
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def opened(path: Path, name: str = "") -> io.BufferedReader:
    """Opens a file for reading in binary form; it never waits.

    Args:
      path: the file.
      name: how a message names it, by default its path; with the key before it where there is one,
        as in "--workdir: /runs/a/config.json".

    Raises:
      FileNotFoundError: there is none.
      UserError: it is no plain file, or cannot be read.
    """
    name = name or os.fspath(path)
    try:
        # A pipe that nobody writes to is opened at once only in this way.
        handle = os.open(path, os.O_RDONLY | _AT_ONCE)
    except (OSError, ValueError) as error:
        raise _unreadable(error, name) from None
    try:
        if (found := _kind(os.fstat(handle).st_mode)) is not None:
            raise UserError(f"{name} is {found} and no file; name a file")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check(path: Path, name: str = "") -> None:
    """Checks a file that a library opens by its path.

    Args:
      path: the file.
      name: as for `opened`.

    Raises:
      FileNotFoundError: there is none.
      UserError: it is no plain file, or cannot be read.
    """
    opened(path, name).close()


def read_bytes(path: Path, name: str = "", most: int = MAX_TEXT) -> bytes:
    """The content of a file of bounded size.

    Args:
      path: the file.
      name: as for `opened`.
      most: bytes that are read into memory.

    Raises:
      FileNotFoundError: there is none.
      UserError: it is no plain file, cannot be read, or is larger.
    """
    name = name or os.fspath(path)
    with opened(path, name) as file:
        try:
            # Python allocates what is asked for. A file of /proc says that it is empty.
            content = file.read(min(os.fstat(file.fileno()).st_size, most) + 1)
            while len(content) <= most and (more := file.read(_MORE)):
                content += more
        except OSError as error:
            raise _unreadable(error, name) from None
    if len(content) > most:
        raise UserError(f"{name} is larger than {most / 1e6:,.0f} MB, which no such file is")
    return content


def sha256(path: Path, name: str = "") -> str:
    """The sha256 of a file in hexadecimal, read in bounded memory.

    Args:
      path: the file.
      name: as for `opened`.

    Raises:
      OSError: there is none, or reading it fails.
      UserError: it is no plain file, or cannot be opened.
    """
    with opened(path, name) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(path: Path, name: str = "", most: int = MAX_TEXT) -> str:
    """The content of a UTF-8 file, with or without a byte order mark, as `read_bytes`."""
    name = name or os.fspath(path)
    try:
        return read_bytes(path, name, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 text (byte {error.start})") from None


@overload
def read_json(path: Path, name: str = "", most: int = ...) -> dict[str, Any]: ...
@overload
def read_json(path: Path, name: str = "", most: int = ..., *, kind: type[T]) -> T: ...
def read_json(path: Path, name: str = "", most: int = MAX_TEXT, *, kind: type = dict) -> Any:
    """The value of a JSON file, as `read_bytes`.

    Args:
      path: the file.
      name: as for `opened`.
      most: bytes that are read into memory.
      kind: the type of the value: `dict`, `list`, or `object` for any.

    Raises:
      FileNotFoundError: there is none.
      UserError: it cannot be read, is not JSON, or holds another kind of value.
    """
    name = name or os.fspath(path)
    return parse_json(read_text(path, name, most), name, kind=kind)


@overload
def parse_json(text: str | bytes, name: str, *, pairs: Pairs = ...) -> dict[str, Any]: ...
@overload
def parse_json(text: str | bytes, name: str, *, kind: type[T], pairs: Pairs = ...) -> T: ...
def parse_json(text: str | bytes, name: str, *, kind: type = dict, pairs: Pairs = None) -> Any:
    """The value of a JSON text, such as a line of a file.

    Example:
      >>> parse_json('{"k": 3}', "k.json")
      {'k': 3}
      >>> parse_json('[' * 100_000, "k.json")
      Traceback (most recent call last):
      ape_jax.errors.UserError: k.json is not JSON (it is nested too deeply)

    Args:
      text: what is parsed.
      name: how a message names it.
      kind: the type of the value: `dict`, `list`, or `object` for any.
      pairs: makes an object of its keys and values in order, for files where a key may stand twice.

    Raises:
      UserError: it is not JSON, or holds another kind of value.
    """
    try:
        value = json.loads(text, object_pairs_hook=pairs)
        _check_unicode(value, text)
    except RecursionError:
        raise UserError(f"{name} is not JSON (it is nested too deeply)") from None
    except ValueError as error:  # Also numbers of more digits than Python converts.
        reason = " ".join(str(error).split())
        raise UserError(f"{name} is not JSON ({reason})") from None
    if not isinstance(value, kind):
        wanted = "an object" if kind is dict else "a list"
        raise UserError(f"{name} holds {json_kind(value)}; expected {wanted}")
    return value


def json_kind(value: Any) -> str:
    """What JSON calls the kind of a value, with its article.

    Example:
      >>> json_kind({}), json_kind(None)
      ('an object', 'null')
    """
    names: dict[type, str] = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "a truth value",
        type(None): "null",
    }
    return names.get(type(value), "a number")


def _check_unicode(value: Any, text: str | bytes) -> None:
    """Refuses halves of characters, which JSON can write and nothing can print."""
    written = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if b"\\ud" in written.lower():
        json.dumps(value, ensure_ascii=False).encode()


def _kind(mode: int) -> str | None:
    """What stands in the place of a file; None for a file."""
    if stat.S_ISREG(mode):
        return None
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "a device")


def _unreadable(error: OSError | ValueError, name: str) -> Exception:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    shown = name if len(name) <= 200 else f"{name[:197]}..."
    if isinstance(error, OSError):
        if error.errno == errno.ENXIO:  # A socket.
            return UserError(f"{shown} is a socket and no file; name a file")
        return UserError(f"{shown} cannot be read ({error.strerror})")
    return UserError(f"{shown!r} is no name that a file can have")  # NUL, or half a character.
