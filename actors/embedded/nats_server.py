"""The embedded broker: one nats-server on loopback, its data in the project's own folder.

Started by whoever needs it first, shared by everybody who starts it again, and stopped when the
last of them has ended, however that came about. What is in the folder:

=================  =========================================================================
``door.lock``      held by one starter at a time
``holders.lock``   held, shared, by each process that uses the server; its guard waits for all
``store.lock``     held by the server and its guard: free exactly when the data are nobody's
``server.json``    which process it is; its port is in ``ports/``, written by the server
``tokens.json``    the token of each role, made at the first start
``store/``         the streams
=================  =========================================================================

The kernel drops a lock when its holder ends, so no file has to be believed after a kill -9.
"""

import contextlib
import os
import select
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final

from actors.embedded import guard, launch
from actors.embedded.launch import ATTACH_LIMIT_S, LOOK_S, Record
from actors.embedded.nats_config import TOKENS_FILE, Role, Tokens, load_tokens
from protocol.errors import Conflict, Unreachable, Usage
from replay.durability import Durability, at_least

MILLISECONDS: Final = 1_000
"""In a second; `select.poll` counts in them."""


class NatsServer:
    """A running embedded broker, held by this process.

    Made by `start` or `find`. `close` (or a ``with`` block) lets go of it; `stop` ends it for
    everybody.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        tokens: Tokens,
        record: Record,
        holding: int,
        child: subprocess.Popen[bytes] | None,
    ) -> None:
        self.folder: Final = folder
        self.url: Final = url
        """``nats://127.0.0.1:<port>``; the same after a restart, if the port is still free."""
        self.name: Final = tokens.name
        self.durability: Final = record.durability
        """What it was started with; `replay.durability` reads from the server what it does."""
        self.pid: Final = record.pid
        self._tokens: Final = tokens
        self._holding: int | None = holding
        self._child: Final = child
        try:
            self._process = os.pidfd_open(record.pid)
            try:
                self._guard = os.pidfd_open(record.guard)
            except ProcessLookupError:
                os.close(self._process)
                raise
        except ProcessLookupError:
            raise Unreachable(
                f"The broker of {folder} ended just after it had answered.",
                hint="Start it again: what was acknowledged is kept.",
            ) from None

    @classmethod
    def start(
        cls,
        folder: Path,
        durability: Durability = "process",
        *,
        port: int | None = None,
        binary: Path | None = None,
    ) -> "NatsServer":
        """Start the folder's broker, or find it running; return when it answers.

        Blocks for about 0.1 s; in a coroutine, use ``asyncio.to_thread``. The port of the last
        start is used again if it is free, so that clients find a restarted broker by themselves.

        Args:
            folder: where data, configuration, tokens and logs live, such as ``.podium/nats``.
            durability: ``process`` or ``power``. A running broker that gives less is refused.
            port: a fixed port instead.
            binary: the server's program, if not the one beside Python or on the PATH.

        Raises:
            Usage: ``site``, which takes three servers.
            NotFound: no program, or one that does not run.
            Denied: the folder cannot be written.
            Conflict: the port is taken; the store is in use by a process that does not answer; or
                the running broker is weaker than asked for, or on another port.
            Busy: the disk is full.
            Unreachable: the program started and ended again; the message has its last words.
            TimedOut: it did not get ready, or somebody else's start did not.
        """
        if durability == "site":
            raise Usage(
                "Durability 'site' needs three replicas, and the embedded broker is one server.",
                hint="Name a cluster with --nats URL, or ask for 'power'.",
            )
        folder = folder.absolute()
        with launch.named_errors(folder):
            launch.prepare(folder)
            with launch.door(folder):
                server = cls._enter(folder, durability, port, binary)
        try:
            server._check(durability, port)
        except Conflict:
            server.close()
            raise
        return server

    @classmethod
    def find(cls, folder: Path) -> "NatsServer | None":
        """The folder's running broker, held; None if none runs. Starts nothing.

        Raises:
            Conflict: something has the store and does not answer.
            TimedOut: somebody else's start took too long.
        """
        folder = folder.absolute()
        if not (folder / TOKENS_FILE).exists():
            return None
        with launch.named_errors(folder), launch.door(folder):
            holding = launch.hold(folder)
            try:
                tokens = load_tokens(folder)
                found = launch.find_running(folder, tokens)
                if not isinstance(found, int):
                    return cls(folder, found[1], tokens, found[0], holding, None)
                os.close(found)
            except BaseException:
                os.close(holding)
                raise
            os.close(holding)
            return None

    @classmethod
    def _enter(
        cls, folder: Path, durability: Durability, port: int | None, binary: Path | None
    ) -> "NatsServer":
        holding = launch.hold(folder)
        try:
            tokens = load_tokens(folder)
            found = launch.find_running(folder, tokens)
            if not isinstance(found, int):
                return cls(folder, found[1], tokens, found[0], holding, None)
            try:
                record, url, child = launch.launch(
                    folder, tokens, durability, port, binary or launch.find_binary(), found
                )
            finally:
                os.close(found)
            return cls(folder, url, tokens, record, holding, child)
        except BaseException:
            os.close(holding)
            raise

    def _check(self, durability: Durability, port: int | None) -> None:
        if not at_least(self.durability, durability):
            raise Conflict(
                f"The broker running on {self.folder} was started with durability"
                f" '{self.durability}', and '{durability}' is asked for.",
                hint=f"Stop it and start again, or ask for '{self.durability}'.",
            )
        if port is not None and not self.url.endswith(f":{port}"):
            raise Conflict(
                f"The broker running on {self.folder} is at {self.url}, not at port {port}.",
                hint="Stop it and start again, or ask for no port.",
            )

    def credentials(self, role: Role) -> tuple[str, str]:
        """User and password of ``role``."""
        return role, self._tokens.of(role)

    def fileno(self) -> int:
        """A descriptor that becomes readable when the server ends, for ``loop.add_reader``."""
        return self._process

    def alive(self) -> bool:
        """Whether the server's process lives; False at once when it has ended, however."""
        return self._holding is not None and not _ends_within(self._process, 0)

    def close(self) -> None:
        """Let go. If nobody else holds the server, it stops, and this returns when it has."""
        if self._holding is None:
            return
        last = launch.is_last(self._holding, self.folder)
        os.close(self._holding)
        self._holding = None
        if last or _ends_within(self._process, 0):
            self._await_end()
        elif self._child is not None:
            # It outlives us, and is nobody's child to wait for: no warning about that.
            self._child.returncode = 0
        os.close(self._process)
        os.close(self._guard)

    def stop(self) -> None:
        """Stop the server for everybody who uses it, cleanly, and return when it has ended."""
        if self._holding is None:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._guard, signal.SIGTERM)
        self._await_end()
        self.close()

    def _await_end(self) -> None:
        if not _ends_within(self._process, guard.STOP_LIMIT_S + LOOK_S):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
        _ends_within(self._process, ATTACH_LIMIT_S)
        _ends_within(self._guard, ATTACH_LIMIT_S)
        if self._child is not None:
            self._child.wait(ATTACH_LIMIT_S)

    def __enter__(self) -> "NatsServer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _ends_within(process: int, limit_s: float) -> bool:
    """Whether the process behind a pidfd has ended, or does within ``limit_s`` seconds."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(limit_s * MILLISECONDS))
