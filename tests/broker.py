"""Real brokers for tests: one server (`r1`), or three that replicate (`r3`), on loopback.

Both start in a folder of their own, keep their ports and data over a restart, and take every
process with them when the tests' process ends, even by kill -9.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import select
import signal
import socket
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import nats
from nats.aio.client import Client

from actors.embedded import NatsServer, Role, guard, launch
from actors.embedded.nats_config import Member, Tokens, new_tokens, render, write_config
from replay.connection import inbox
from replay.durability import Durability

ELECTION_LIMIT_S: Final = 60.0
"""Seconds for three servers on a busy machine to agree on a leader; alone it takes about one."""

ROUTES: Final = range(10_000, 30_000)
"""Ports for what servers tell each other: below those that the system gives to whoever asks for any
(from 32,768 on), one of which somebody else may be given before the server takes it."""

LOOK_S: Final = 0.02
"""Seconds between two questions to a server that can't call us."""

ANSWER_LIMIT_S: Final = 2.0
"""Seconds for a monitoring page."""

T = TypeVar("T")


def eventually(ask: Callable[[], T | None], what: str, limit_s: float = ELECTION_LIMIT_S) -> T:
    """The first answer that is not None (nor empty, nor False); fails after ``limit_s`` seconds."""
    deadline = time.monotonic() + limit_s
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"{what}: not within {limit_s:.0f} s"
        select.select((), (), (), LOOK_S)
    return answer


def wait_ended(pid: int, limit_s: float = 20.0) -> None:
    """Return when the process has ended; fail after ``limit_s`` seconds."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        readable, _, _ = select.select([descriptor], (), (), limit_s)
        assert readable, f"process {pid} lives after {limit_s:.0f} s"
    finally:
        os.close(descriptor)


async def settled(client: Client) -> None:
    """Return when the server has taken all that the client has said, and sent what was due to it.

    The library writes a ping before what still waits in its buffer; a second ping comes after it.
    """
    await client.flush()
    await client.flush()


class _Connecting:
    """What one server and three have in common: an address, and a token for each role."""

    url: str

    def credentials(self, role: Role) -> tuple[str, str]:
        """User and password of ``role``."""
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def connect(
        self, role: Role = "conductor", *, url: str = "", **options: Any
    ) -> AsyncIterator[Client]:
        """A client of ``role``. Errors that the broker sends go to ``error_cb``, or nowhere."""
        user, password = self.credentials(role)

        async def unheard(_error: Exception) -> None:
            """Silent: nats-py would log what tests provoke on purpose."""

        settings: dict[str, Any] = {
            "error_cb": unheard,
            "connect_timeout": 5,
            "inbox_prefix": inbox(user),
        } | options
        client = await nats.connect(
            (url or self.url).split(","), user=user, password=password, **settings
        )
        try:
            yield client
        finally:
            await client.close()


class One(_Connecting):
    """One server."""

    def __init__(self, folder: Path, durability: Durability) -> None:
        self.folder = folder
        self.durability = durability
        self.server = NatsServer.start(folder, durability)
        self.url = self.server.url

    def credentials(self, role: Role) -> tuple[str, str]:
        """User and password of ``role``."""
        return self.server.credentials(role)

    def kill(self) -> None:
        """Kill -9, and wait for the end."""
        os.kill(self.server.pid, signal.SIGKILL)
        wait_ended(self.server.pid)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Within it the server is frozen (SIGSTOP)."""
        os.kill(self.server.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            self.resume()

    def resume(self) -> None:
        """Thaw it (SIGCONT)."""
        os.kill(self.server.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Start it again on the same data and the same port."""
        self.server.close()
        self.server = NatsServer.start(self.folder, self.durability)
        assert self.server.url == self.url, "the port was taken meanwhile"

    def stop(self) -> None:
        """Stop it for good."""
        with contextlib.suppress(ProcessLookupError):
            self.resume()
        self.server.stop()


class _Node:
    """One server of three: a guarded process that keeps its ports."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.pid = 0
        self.url = ""
        self.monitor = ""
        self._holding: int | None = None

    def spawn(self, tokens: Tokens, durability: Durability, port: int, member: Member) -> None:
        """Start the process; `settle` waits for its ports."""
        launch.prepare(self.folder)
        write_config(
            self.folder,
            render(
                *(self.folder, tokens, durability),
                port=port,
                name=self.name,
                member=member,
                monitor=True,
            ),
        )
        for left in (self.folder / "ports").iterdir():
            left.unlink()
        (self.folder / guard.SERVER_FILE).unlink(missing_ok=True)
        if self._holding is None:
            self._holding = launch.hold(self.folder)
        store = launch.lock_store(self.folder)
        self.child = launch.start_guard(
            self.folder, launch.find_binary(), store, self.name, durability
        )
        os.close(store)

    def settle(self) -> None:
        """Wait for the process and its ports."""
        record = json.loads(
            eventually(lambda: _read(self.folder / guard.SERVER_FILE), f"{self.name} starts")
        )
        self.pid = record["pid"]

        def ports() -> dict[str, list[str]] | None:
            found = next((self.folder / "ports").glob(f"*_{self.pid}.ports"), None)
            text = _read(found) if found else None
            with contextlib.suppress(json.JSONDecodeError):
                return json.loads(text) if text else None
            return None

        listening = eventually(ports, f"{self.name} listens")
        self.url = listening["nats"][0]
        self.monitor = listening["monitoring"][0]

    def ask(self, page: str) -> dict[str, Any]:
        """One of its monitoring pages; empty if it does not answer."""
        try:
            with urllib.request.urlopen(f"{self.monitor}/{page}", timeout=ANSWER_LIMIT_S) as got:
                answer: dict[str, Any] = json.load(got)
                return answer
        except (OSError, json.JSONDecodeError):
            return {}

    def release(self) -> None:
        """Let go, so that its guard stops it, and wait for the guard's end."""
        if self._holding is not None:
            os.close(self._holding)
            self._holding = None
            self.child.wait()


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


class Three(_Connecting):
    """Three servers in one cluster, numbered 0 to 2."""

    def __init__(self, folder: Path, durability: Durability) -> None:
        self.durability = durability
        self.tokens = new_tokens()
        self.nodes = [_Node(f"n{index}", folder / f"n{index}") for index in range(3)]
        self._members = _members(len(self.nodes))
        for node, member in zip(self.nodes, self._members, strict=True):
            node.spawn(self.tokens, durability, launch.ANY_PORT, member)
        for node in self.nodes:
            node.settle()
        self.url = ",".join(node.url for node in self.nodes)
        self.await_leader()

    def credentials(self, role: Role) -> tuple[str, str]:
        """User and password of ``role``."""
        return role, self.tokens.of(role)

    def _asking(self, page: str) -> dict[int, dict[str, Any]]:
        asked = {index: node.ask(page) for index, node in enumerate(self.nodes) if node.pid}
        return {index: answer for index, answer in asked.items() if answer}

    def await_leader(self, members: int = 3) -> str:
        """Wait until ``members`` servers name the same leader of the cluster; returns its name."""

        def agreed() -> str | None:
            metas = [each.get("meta_cluster", {}) for each in self._asking("jsz").values()]
            leaders = [meta.get("leader") for meta in metas]
            sizes = {meta.get("cluster_size") for meta in metas}
            same = len(leaders) >= members and len(set(leaders)) == 1
            return leaders[0] if same and sizes == {len(self.nodes)} else None

        return eventually(agreed, "the servers elect a leader")

    def leader_of(self, stream: str) -> int:
        """The number of the server that leads ``stream``, once one does."""

        def led() -> list[int] | None:
            for answer in self._asking("jsz?accounts=1&streams=1").values():
                for account in answer.get("account_details") or []:
                    for detail in account.get("stream_detail") or []:
                        name = (detail.get("cluster") or {}).get("leader")
                        if detail["name"] == stream and name:
                            number = next(
                                index for index, node in enumerate(self.nodes) if node.name == name
                            )
                            return [number] if self.nodes[number].pid else None
            return None

        return eventually(led, f"a leader of {stream}")[0]

    def await_current(self, stream: str) -> None:
        """Wait until every server that runs has all of ``stream``."""

        def current() -> bool:
            found = [
                detail["state"]["last_seq"]
                for answer in self._asking("jsz?accounts=1&streams=1").values()
                for account in answer.get("account_details") or []
                for detail in account.get("stream_detail") or []
                if detail["name"] == stream
            ]
            return len(found) == sum(bool(node.pid) for node in self.nodes) and len(set(found)) == 1

        eventually(current, f"all replicas of {stream} are current")

    def url_of(self, index: int) -> str:
        """The address of one server."""
        return self.nodes[index].url

    def kill(self, index: int) -> None:
        """Kill -9 one server, and wait for its end."""
        node = self.nodes[index]
        os.kill(node.pid, signal.SIGKILL)
        wait_ended(node.pid)
        node.pid = 0

    def pause(self, index: int) -> None:
        """Freeze one server (SIGSTOP)."""
        os.kill(self.nodes[index].pid, signal.SIGSTOP)

    def resume(self, index: int) -> None:
        """Thaw one server (SIGCONT)."""
        os.kill(self.nodes[index].pid, signal.SIGCONT)

    def restart(self, index: int) -> None:
        """Start one killed server again, on the same data and ports."""
        node = self.nodes[index]
        node.child.wait()
        port = int(node.url.rpartition(":")[2])
        node.spawn(self.tokens, self.durability, port, self._members[index])
        node.settle()

    def stop(self) -> None:
        """Stop all three."""
        for node in self.nodes:
            if node.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(node.pid, signal.SIGKILL)  # A last server stopping alone takes long.
            node.release()


def _members(count: int) -> list[Member]:
    """Places in a cluster, on ports that are free, and given to nobody who asks for any."""
    anyhow = random.SystemRandom().sample(ROUTES, len(ROUTES))
    ports = list(itertools.islice(filter(_free, anyhow), count))
    return [Member(port, tuple(other for other in ports if other != port)) for port in ports]


def _free(port: int) -> bool:
    with socket.socket() as trying, contextlib.suppress(OSError):
        trying.bind(("127.0.0.1", port))
        return True
    return False


@contextlib.contextmanager
def r1(durability: Durability = "process", folder: Path | None = None) -> Iterator[One]:
    """One server, in ``folder`` or one that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="podium-r1-") as temporary:
        broker = One(folder or Path(temporary), durability)
        try:
            yield broker
        finally:
            broker.stop()


@contextlib.contextmanager
def r3(durability: Durability = "process", folder: Path | None = None) -> Iterator[Three]:
    """Three servers that have elected a leader, in ``folder`` or one that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="podium-r3-") as temporary:
        broker = Three(folder or Path(temporary), durability)
        try:
            yield broker
        finally:
            broker.stop()


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Run one of the blocking methods above beside a running loop."""
    return await asyncio.to_thread(work, *arguments)
