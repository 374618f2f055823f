"""Stands before the page: what a request may ask for, from where, and how much it may send.

Gradio serves far more than this page needs: proxies, recordings, an API, other files. What is not
listed here is not there.
"""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from ape_jax.errors import UserError
from ape_jax.pages.html import POLICY
from ape_jax.pages.served.asked import SESSION, Questions
from ape_jax.pages.served.hosts import Hosts
from ape_jax.pages.served.kept import Kept

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

MOST_FILE = 100 * 10**6
"""Bytes of an upload."""
_MOST_AROUND = 10**6  # What a form has beside its file.
_MOST_QUESTION = 12 * 10**6  # The most and longest captions that a visitor may choose from.
_API = "/gradio_api"
_PAGES = ("/", "/report")
_FILES = f"{_API}/file="
_SESSIONS = f"{_API}/heartbeat/"
_QUESTION, _UPLOAD = f"{_API}/queue/join", f"{_API}/upload"
_GET = (
    *_PAGES,
    "/config",
    "/favicon.ico",
    "/manifest.json",
    "/theme.css",
    f"{_API}/info",
    f"{_API}/queue/data",
    f"{_API}/startup-events",
    f"{_API}/upload_progress",
)
_GET_BELOW = ("/assets/", "/static/", "/svelte/", _FILES, _SESSIONS)

# The page's own scripts are in it; they get nothing from anyone else, and no site may frame it.
_PAGE_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_FILE_POLICY = f"{POLICY}; frame-ancestors 'none'"
_HEADERS = {
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _Refused(Exception):
    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


class Guard:
    """An ASGI application before another, which is Gradio's.

    Args:
      app: what answers a request that may be asked.
      hosts: who may ask.
      kept: where uploads go.
      questions: what may be asked of functions.
    """

    def __init__(self, app: App, hosts: Hosts, kept: Kept, questions: Questions):
        self._app, self._hosts, self._kept, self._questions = app, hosts, kept, questions

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers a request, or has it answered."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # The page has no web sockets.
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = _Answer(send, scope["path"])
        try:
            headers = _headers(scope)
            self._check(scope, headers)
            if scope["method"] == "POST":
                await self._sent(scope, headers, receive, answer)
            else:
                await self._app(scope, receive, answer.send)
            await answer.end()
        except _Refused as error:
            await answer.refuse(error.status, str(error))
        except Exception as error:  # The page stays up, and says what it was in one line.
            await self._failed(scope, error, answer)

    def _check(self, scope: Message, headers: dict[str, list[str]]) -> None:
        """Raises _Refused for what may not be asked."""
        path, method = scope["path"], scope["method"]
        navigates = method == "GET" and path in _PAGES
        if why := self._hosts.refusal(headers, navigates):
            raise _Refused(403, why)
        if method not in ("GET", "HEAD", "POST"):
            raise _Refused(405, f"the page does not answer {method[:20]}")
        posted = path in (_QUESTION, _UPLOAD)
        if posted != (method == "POST"):
            raise _Refused(405 if posted else 404, "there is nothing to ask here in this way")
        if posted:
            return
        if path not in _GET and not path.startswith(_GET_BELOW):
            raise _Refused(404, "there is no such page")
        if path.startswith(_FILES) and self._kept.file(path.removeprefix(_FILES)) is None:
            raise _Refused(404, "there is no such file here")
        sessions = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [])
        if path.startswith(_SESSIONS):
            sessions.append(path.removeprefix(_SESSIONS))
        if path == f"{_API}/queue/data" and len(sessions) != 1:
            raise _Refused(422, "session_hash is missing")
        if not all(SESSION.fullmatch(session) for session in sessions):
            raise _Refused(422, "session_hash is no name of a session")

    async def _sent(
        self, scope: Message, headers: dict[str, list[str]], receive: Receive, answer: _Answer
    ) -> None:
        """Has what was sent answered; its size is said before it."""
        size = headers.get("content-length", [""])[0]
        if not size.isascii() or not size.isdigit() or len(size) > 18:
            raise _Refused(411, "the size of the request (Content-Length) is missing")
        if scope["path"] == _UPLOAD:
            if int(size) > MOST_FILE + _MOST_AROUND:
                raise _Refused(413, f"the file is larger than {MOST_FILE / 1e6:.0f} MB")
            try:
                with self._kept.room_for(int(size)):
                    await self._app(scope, receive, answer.send)
            except UserError as error:
                raise _Refused(503, str(error)) from None
            return
        if int(size) > _MOST_QUESTION:
            raise _Refused(413, f"the request is larger than {_MOST_QUESTION / 1e6:.0f} MB")
        try:
            asked = self._questions.checked(await _body(receive))
        except UserError as error:
            raise _Refused(422, str(error)) from None
        body = json.dumps(asked).encode()
        changed = [
            (k, v) for k, v in scope["headers"] if k not in (b"content-length", b"content-type")
        ]
        changed += [
            (b"content-length", str(len(body)).encode()),
            (b"content-type", b"application/json"),
        ]
        await self._app({**scope, "headers": changed}, _again(body, receive), answer.send)

    async def _failed(self, scope: Message, error: Exception, answer: _Answer) -> None:
        name = type(error).__name__
        if name == "ClientDisconnect":
            return
        full = next(
            (e for e in _causes(error) if isinstance(e, OSError) and e.errno in _FULL), None
        )
        said = f"{full.strerror}" if full else f"{name}: {' '.join(str(error).split())[:200]}"
        print(f"page: {scope['method']} {scope['path'][:100]!r} failed ({said})", file=sys.stderr)
        if full:
            await answer.refuse(507, f"the file cannot be kept ({full.strerror})")
        elif scope["path"] == _UPLOAD:
            await answer.refuse(400, "the upload cannot be read; send one file as a form")
        else:
            await answer.refuse(500, f"this failed with {name}; the terminal says more")


class _Answer:
    """Sends an answer with the headers of this page; a failure of Gradio's is left out of it."""

    def __init__(self, send: Send, path: str):
        self._send, self._begun, self._failed = send, False, 0
        served = path.startswith(_FILES) or path == "/report"
        self._policy = _FILE_POLICY if served else _PAGE_POLICY

    async def send(self, message: Message) -> None:
        """Sends a message of Gradio's."""
        if message["type"] == "http.response.start" and message["status"] >= 500:
            self._failed = message["status"]  # What it says is replaced by one sentence.
        if not self._failed:
            await self._pass(message)

    async def end(self) -> None:
        """Says that Gradio has failed, where it has."""
        if self._failed == 503:
            await self.refuse(503, "too much is asked at once; ask again later")
        elif self._failed:
            await self.refuse(self._failed, "this failed; try again")

    async def refuse(self, status: int, sentence: str) -> None:
        """Answers with one sentence, unless another answer has begun."""
        if self._begun:
            return
        body = json.dumps({"detail": sentence}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),  # What was sent with it need not be read.
        ]
        await self._pass({"type": "http.response.start", "status": status, "headers": headers})
        await self._pass({"type": "http.response.body", "body": body})

    async def _pass(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
            own = {**_HEADERS, "content-security-policy": self._policy}
            kept = [(k, v) for k, v in message["headers"] if k.decode("latin-1").lower() not in own]
            added = [(k.encode(), v.encode()) for k, v in own.items()]
            message = {**message, "headers": [*kept, *added]}
        await self._send(message)


def _headers(scope: Message) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


async def _body(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Refused(400, "the request ended before its end")
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """A request's body once more, and then what comes after it."""
    parts = [body]

    async def next_message() -> Message:
        if parts:
            return {"type": "http.request", "body": parts.pop(), "more_body": False}
        return await receive()

    return next_message


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
