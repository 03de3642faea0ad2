"""The process around the application: a socket, a listener, and a graceful end."""

import asyncio
import contextlib
import errno
import importlib.util
import ipaddress
import os
import socket
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from podium.config import SERVE_TOKENS
from podium.serve.runs import Runs
from protocol.errors import Conflict, InvalidData, NotFound, Usage

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

DEFAULT_HOST: Final = "127.0.0.1"

DEFAULT_PORT: Final = 7576

MAX_PORT: Final = 65_535

TOKEN_ENV: Final = SERVE_TOKENS
"""The variable that has the tokens, if no other is named."""

MIN_TOKEN_CHARS: Final = 16
"""Characters of a token: a shorter one can be guessed by whoever may ask often."""

GRACE_S: Final = 10.0
"""Seconds that requests have to end by themselves when the server stops; what orchestrators give a
process altogether is 30."""

LAST_WORDS_S: Final = 5.0
"""Seconds that they then have to be told so."""


def installed() -> None:
    """Raise `Usage` unless the packages are there that the server stands on."""
    for package in ("starlette", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise Usage(
                f"podium serve needs {package}, which is not installed.",
                hint="pip install 'podium[serve]'",
            )


def tokens_from(environment: Mapping[str, str], name: str = "", file: str = "") -> tuple[str, ...]:
    """The tokens that are let in: of a variable and of a file, one a line or between blanks.

    Args:
        environment: The variables.
        name: The variable; empty for `TOKEN_ENV`, if it is set.
        file: The file; empty for none. A line that begins with ``#`` is a comment.

    Raises:
        Usage: The variable is named, and not set.
        NotFound: The file is named, and can't be read.
        InvalidData: There is no token in it, or one that is too short or not printable.
    """
    tokens: list[str] = []
    if name or TOKEN_ENV in environment:
        name = name or TOKEN_ENV
        if name not in environment:
            raise Usage(f"the variable {name} is not set", hint=f"export {name}=…")
        tokens += _checked(environment[name].split(), name)
    if file:
        try:
            lines = Path(file).read_text("utf-8").splitlines()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise NotFound(
                f"the token file {file} can't be read: {why}",
                hint="name a file that has a token on each line",
            ) from None
        tokens += _checked([w for line in lines if line[:1] != "#" for w in line.split()], file)
    return tuple(dict.fromkeys(tokens))


def _checked(tokens: list[str], where: str) -> list[str]:
    cure = "make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
    if not tokens:
        raise InvalidData(f"there is no token in {where}", hint=cure)
    for token in tokens:
        if len(token) < MIN_TOKEN_CHARS or not (token.isascii() and token.isprintable()):
            raise InvalidData(
                f"a token in {where} is no token: it has {MIN_TOKEN_CHARS} or more letters, digits "
                "and signs",
                hint=cure,
            )
    return tokens


def local(host: str) -> bool:
    """Whether only this machine can reach that address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_open(host: str, tokens: tuple[str, ...]) -> None:
    """Raise `Usage` if everybody on the network could spend our money."""
    if not local(host) and not tokens:
        raise Usage(
            f"--host {host} lets others in, and there is no token that they need.",
            hint=f"export {TOKEN_ENV}=…   or leave --host out to serve this machine only",
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        Conflict: Somebody else listens there.
        Usage: There is no such address here.
    """
    if not 0 <= port <= MAX_PORT:
        raise Usage(f"there is no port {port}", hint=f"--port is 0 to {MAX_PORT}; 0 takes any")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        number = error.errno
        if number == errno.EADDRINUSE:
            raise Conflict(
                f"something listens on {host}:{port} already",
                hint="take another port: podium serve --port 0 chooses one that is free",
            ) from None
        why = os.strerror(number) if number and number > 0 else str(error)
        raise Usage(
            f"can't listen on {host}:{port}: {why}",
            hint=f"leave --host and --port out for {DEFAULT_HOST}:{DEFAULT_PORT}",
        ) from None


def root_of(listening: socket.socket) -> str:
    """Where the server is found, without a path."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def url_of(listening: socket.socket) -> str:
    """Where the official clients find it: their ``base_url``."""
    return f"{root_of(listening)}/v1"


async def serve(
    app: "ASGIApp",
    runs: Runs,
    listening: socket.socket,
    stop: asyncio.Event,
    *,
    beside: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
    grace_s: float = GRACE_S,
) -> None:
    """Answer requests until ``stop`` is set; then let those that wait end, within ``grace_s``.

    Args:
        app: Answers.
        runs: Whose requests are waited for.
        listening: The socket.
        stop: Set by whoever wants the end.
        beside: What runs meanwhile, and ends by itself when ``runs`` stops.
        grace_s: Seconds.
    """
    server = _server(app, round(grace_s + LAST_WORDS_S))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    stopping = asyncio.create_task(stop.wait())
    others = [asyncio.create_task(each()) for each in beside]
    try:
        await asyncio.wait({serving, stopping, *others}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await runs.waits.quiet()
        runs.waits.stop()
        await asyncio.gather(serving, *others)
    finally:
        runs.waits.stop()
        left = {task for task in (serving, stopping, *others) if not task.done()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
        await runs.close()


def _server(app: "ASGIApp", patience_s: int) -> "uvicorn.Server":
    import uvicorn

    class Server(uvicorn.Server):
        """Leaves signals to whoever runs it."""

        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None, None, None]:
            yield

    return Server(
        uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=patience_s,
        )
    )
