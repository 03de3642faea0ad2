"""What Starlette leaves open: who may ask, how long a body may be, and who has hung up."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from typing import Any, Final, TypeVar

from starlette.authentication import SimpleUser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from podium.serve.problems import Problem
from podium.serve.server import local

_T = TypeVar("_T")

USER_CHARS: Final = 16
"""Characters of a token's hash by which its owner is known: 64 bits, which say nothing of it."""


class Gone(Exception):
    """The client hung up."""


class Guard:
    """Lets in whoever has a token; without tokens, whoever is on this machine.

    Args:
        app: What is guarded.
        tokens: Any of them will do; none asks for none.
        public: Paths that anybody may ask for.
        only_here: Whether only this machine can reach us: then a name that is not its own comes
            from a page that had its own name point here (DNS rebinding).
    """

    def __init__(
        self,
        app: ASGIApp,
        tokens: Iterable[str] = (),
        public: frozenset[str] = frozenset(),
        only_here: bool = True,
    ) -> None:
        self._app, self._public, self._only_here = app, public, only_here
        self._digests = [_digest(token) for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or scope["path"] in self._public:
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        problem = self._problem(request)
        if problem is not None:
            await refusal(problem)(scope, receive, send)
            return
        if self._digests:
            scope["user"] = SimpleUser(_digest(bearer(request)).hex()[:USER_CHARS])
        await self._app(scope, receive, send)

    def _problem(self, request: Request) -> Problem | None:
        if not self._digests:
            host = request.headers.get("host", "")
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if self._only_here and not local(name.strip("[]")):
                text = f"this server has no token, so it answers to its own names only, not {name}"
                return Problem(403, "wrong_host", text)
            return None
        given = _digest(bearer(request))
        # Every token is compared, and in constant time: how long it takes says nothing.
        fits = [hmac.compare_digest(given, known) for known in self._digests]
        if any(fits):
            return None
        text = "no token, or not one of this server's: send Authorization: Bearer TOKEN"
        return Problem(401, "invalid_api_key", text)


def bearer(request: Request) -> str:
    """The token of a request; empty without one."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def refusal(problem: Problem) -> Response:
    """The response that tells a problem."""
    return JSONResponse(problem.body(), problem.status, problem.headers())


async def body_of(request: Request, limit: int) -> bytes:
    """The whole body, which must say that it is JSON: no page elsewhere can send such a one.

    Raises:
        Problem: It is something else, or too large.
        Gone: The client hung up.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        text = "the body has to be JSON: send content-type: application/json"
        raise Problem(415, "not_json", text)
    body = bytearray()
    declared = request.headers.get("content-length", "")
    try:
        if not (declared.isdecimal() and int(declared) > limit):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    break
            else:
                return bytes(body)
    except ClientDisconnect:
        raise Gone from None
    raise Problem(413, "request_too_large", f"the body is too large: at most {limit:,} bytes")


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, _T]) -> _T:
    """The result of some work, which is cancelled when the client hangs up. Raises `Gone`."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Gone
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait({working, leaving})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events, for as long as the client listens.

    Args:
        events: Makes them. A `Problem` that it raises ends the stream; it has told it before.
        headers: Of the response.
        held: Entered already; left at the end, with whatever ended the stream before its time.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: Callable[[], AsyncGenerator[bytes, None]],
        headers: dict[str, str],
        held: AbstractAsyncContextManager[object],
    ) -> None:
        self._events, self._held = events, held
        plain = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(headers={**plain, **headers})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        with suppress(Gone, OSError, Problem):
            async with self._held:
                await unless_gone(receive, self._write(send))

    async def _write(self, send: Send) -> None:
        head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(head)
        told: Problem | None = None
        try:
            async with aclosing(self._events()) as events:
                async for event in events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
        except Problem as problem:
            told = problem
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        if told is not None:
            raise told
