"""Who may ask, and how much may come: before anything of a request is read.

On this machine alone there is no key. Elsewhere every address begins with /k/KEY, which viewers that cannot log in take
as a part of the server's address; programs may send it as a bearer token instead.
"""

from __future__ import annotations

import json
import secrets
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
PREFIX = "/k/"
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
]


def is_key(text: str) -> bool:
    """Long enough not to be guessed, of letters that need no escape in an address."""
    return len(text) >= 16 and text.isascii() and text.replace("-", "").replace("_", "").isalnum()


class Gate:
    """Lets through what may come: with the right key, of no foreign web page, of no more than so many bytes."""

    def __init__(self, app: ASGIApp, key: str | None, origins: tuple[str, ...], most_bytes: int):
        self._app, self._key, self._origins, self._most = app, key, origins, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        scope, allowed = self._without_key(scope, headers)
        preflight = scope["method"] == "OPTIONS" and "access-control-request-method" in headers
        if refusal := self._refusal(headers, allowed or preflight):
            await self._drain(receive)
            await _answer(send, *refusal)
            return
        await self._app(scope, self._counted(receive), _with_headers(send))

    async def _drain(self, receive: Receive) -> None:
        """Forget what still comes: most clients read no answer before they have sent all. There is an end to that."""
        came, more = 0, True
        while more and came <= 2 * self._most:
            message = await receive()
            came += len(message.get("body", b""))
            more = message.get("more_body", False)

    def _without_key(self, scope: Scope, headers: Headers) -> tuple[Scope, bool]:
        """The request without the key in its address, and whether it had the right one."""
        path = scope["path"]
        if path.startswith(PREFIX):
            given, _, rest = path.removeprefix(PREFIX).partition("/")
            scope = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode()}
        else:
            kind, _, given = headers.get("authorization", "").partition(" ")
            given = given if kind.lower() == "bearer" else ""
        if self._key is None:
            return scope, True
        return scope, secrets.compare_digest(given.encode(), self._key.encode())

    def _refusal(self, headers: Headers, allowed: bool) -> tuple[int, str] | None:
        host = _host_of(f"//{headers.get('host', '')}")
        if self._key is None and host not in LOOPBACK:
            return 403, "[forbidden] this service is for this machine alone: ask it by 127.0.0.1"
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins and origin != f"http://{headers.get('host')}":
            return 403, "[forbidden] web pages of this origin may not ask: start the service with --viewer-origin"
        if not allowed:
            return 401, "[unauthorized] no key, or a wrong one"
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            return 400, "[bad-request] the length of the request is no number"
        if int(length) > self._most:
            return 413, f"[too-large] the request is larger than {self._most >> 20} MiB"
        return None

    def _counted(self, receive: Receive) -> Receive:
        """What says no length is counted as it comes."""
        came = 0

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > self._most:
                raise HTTPException(413, f"[too-large] the request is larger than {self._most >> 20} MiB")
            return message

        return counted


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


async def _answer(send: Send, status: int, detail: str) -> None:
    body = json.dumps({"detail": detail}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers + HEADERS})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
        await send(message)

    return send_with_headers
