"""What every adapter keeps: one suite for all of them, each against the real thing it hosts.

The deadline of an attempt and the limit on an outcome's size are kept by the hosting actor, which
cancels the adapter and measures what it gives. Here `worked` does the first as the actor does; of
the second the suite asks only that a large value arrives whole or says that it was cut.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

import msgspec
import psutil
import pytest

from actors.ports import Adapter, Attempt, Outcome
from actors.workers import ADAPTERS, cancelled, draft, host, isolation, tool
from protocol.actions import Json, Spend
from protocol.limits import MAX_DETAIL_CHARS
from tests.endpoint import Endpoint

LIMIT_S: Final = 20.0
"""Seconds after which a test that waits for something gives up."""

LARGE: Final = 300_000
"""Characters of a large value: more than one message would keep inline."""

BARRIER = threading.Barrier(3)
STARTED = threading.Event()
STOPPED = threading.Event()


@tool(cost_usd=0.5, concurrency=3)
def sync_tool(what: str) -> object:
    """Does what the suite asks for, in a thread."""
    match what:
        case "fail":
            raise ValueError("no such thing")
        case "wait":
            STARTED.set()
            while not cancelled():
                pass
            STOPPED.set()
        case "large":
            return "x" * LARGE
        case "not text":
            return b"\xff\xfe"
        case "meet":
            BARRIER.wait(LIMIT_S)
    return what


@tool(cost_usd=0.5)
async def async_tool(what: str) -> object:
    """Does what the suite asks for, on the loop."""
    match what:
        case "fail":
            raise ValueError("no such thing")
        case "wait":
            STARTED.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                STOPPED.set()
        case "large":
            return "x" * LARGE
        case "not text":
            return b"\xff\xfe"
        case "meet":
            await asyncio.to_thread(BARRIER.wait, LIMIT_S)
    return what


class Case(Protocol):
    """One adapter, and how to make it do each of the things that the suite asks for."""

    adapter: Adapter
    spend: Spend
    """What one attempt that succeeds costs."""
    value: Json
    """What ``ask("ok")`` gives."""
    parties: int
    """Attempts that can be seen to work at the same time."""

    def ask(self, what: str) -> dict[str, Json]:
        """Arguments that bring about ``ok``, ``fail``, ``wait``, ``large``, ``not text``."""
        ...

    async def started(self) -> None:
        """Return when what ``wait`` starts is at work."""
        ...

    async def stopped(self) -> bool:
        """Whether nothing of it works any more; may wait for it."""
        ...

    async def meet(self) -> list[Outcome]:
        """The outcomes of ``parties`` attempts none of which can end before all have begun."""
        ...


class FunctionCase:
    """A Python function."""

    value: Json = "ok"
    spend = Spend(cost=500_000)
    parties = 3

    def __init__(self, function: Callable[..., Any]) -> None:
        self.adapter = host(draft(f"function:{__name__}:{function.__name__}"))
        STARTED.clear()
        STOPPED.clear()
        BARRIER.reset()

    def ask(self, what: str) -> dict[str, Json]:
        return {"what": what}

    async def started(self) -> None:
        assert await asyncio.to_thread(STARTED.wait, LIMIT_S)

    async def stopped(self) -> bool:
        return await asyncio.to_thread(STOPPED.wait, LIMIT_S)

    async def meet(self) -> list[Outcome]:
        return await together(self)


class AgentCase:
    """An agent behind an endpoint that follows a script."""

    value: Json = "Lima"
    spend = Spend(tokens=15, cost=40)
    parties = 5

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        options = {"model": "m", "base_url": endpoint.url, "price_in": 2, "price_out": 4}
        self.adapter = host(draft("openai", {**options, "api_key_env": "PODIUM_TEST_KEY"}))

    def ask(self, what: str) -> dict[str, Json]:
        match what:
            case "ok":
                self.endpoint.say("Lima")
            case "fail":
                self.endpoint.refuse(400, "no such thing")
            case "wait":
                self.held = self.endpoint.hold()
            case "large":
                self.endpoint.say("x" * LARGE)
            case "not text":
                self.endpoint.send(b'{"choices":[{"message":{"content":"\xff\xfe"}}]}')
        return {"subtask": what}

    async def started(self) -> None:
        assert await asyncio.to_thread(self.held.arrived.wait, LIMIT_S)

    async def stopped(self) -> bool:
        return await asyncio.to_thread(self.held.gone.wait, LIMIT_S)

    async def meet(self) -> list[Outcome]:
        self.endpoint.meet(self.parties)
        return await together(self)


class SandboxCase:
    """Sandboxed Python."""

    spend = Spend()
    parties = 3

    CODE: Final = {
        "ok": "'ok'",
        "fail": "raise ValueError('no such thing')",
        "wait": "import signal\nwhile True: signal.pause()",
        "meet": "import signal\nwhile True: signal.pause()",
        "large": f"print('x' * {LARGE})",
        "not text": r"import sys; sys.stdout.buffer.write(b'\xff\xfe')",
    }

    def __init__(self) -> None:
        self.value: Json = {"stdout": "", "stderr": "", "result": "'ok'"}
        self.adapter = host(draft("python", {"isolation": isolation().level}))
        self.before = set(psutil.Process().children(recursive=True))
        self.seen: list[psutil.Process] = []

    def ask(self, what: str) -> dict[str, Json]:
        return {"code": self.CODE[what]}

    async def started(self) -> None:
        await self._processes(1)

    async def stopped(self) -> bool:
        return not any(process.is_running() for process in self.seen)

    async def meet(self) -> list[Outcome]:
        """They can't see each other, but all of them can be seen from here."""
        works = [
            asyncio.create_task(self.adapter.run(attempt(self.ask("meet"))))
            for _ in range(self.parties)
        ]
        await self._processes(self.parties)
        for work in works:
            work.cancel()
        ended = await asyncio.gather(*works, return_exceptions=True)
        assert await self.stopped()
        return [Outcome() for end in ended if isinstance(end, asyncio.CancelledError)]

    async def _processes(self, attempts: int) -> None:
        """Wait until each attempt has its supervisor, its init if it is isolated, and its code."""
        each = 3 if isolation().level == "namespaces" else 2
        async with asyncio.timeout(LIMIT_S):
            while len(self.seen) < attempts * each:
                await asyncio.sleep(0)
                now = set(psutil.Process().children(recursive=True))
                self.seen = list(now - self.before)


@asynccontextmanager
async def hosted(kind: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    """The case of that name, closed in the end."""
    monkeypatch.setenv("PODIUM_TEST_KEY", "sk-test")
    with Endpoint() as endpoint:
        case: Case
        match kind:
            case "function sync":
                case = FunctionCase(sync_tool)
            case "function async":
                case = FunctionCase(async_tool)
            case "openai":
                case = AgentCase(endpoint)
            case _:
                case = SandboxCase()
        try:
            yield case
        finally:
            await case.adapter.close()


def attempt(arguments: dict[str, Json], timeout_s: float = LIMIT_S) -> Attempt:
    return Attempt(run="r", call="1-0", attempt=1, arguments=arguments, timeout_s=timeout_s)


async def worked(adapter: Adapter, work: Attempt) -> Outcome:
    """The outcome as the hosting actor makes it: it cancels the adapter at the deadline."""
    try:
        async with asyncio.timeout(work.timeout_s):
            return await adapter.run(work)
    except TimeoutError:
        return Outcome(status="TIMEOUT", fault="worker", value="The deadline is over.")


async def together(case: Case) -> list[Outcome]:
    works = [attempt(case.ask("meet")) for _ in range(case.parties)]
    return list(await asyncio.gather(*(worked(case.adapter, work) for work in works)))


KINDS: Final = ["function sync", "function async", "openai", "python"]
every_adapter = pytest.mark.parametrize("kind", KINDS)


def test_no_adapter_is_left_out() -> None:
    assert {kind.partition(" ")[0] for kind in KINDS} == set(ADAPTERS)


@every_adapter
async def test_what_works_is_ok_and_billed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with hosted(kind, monkeypatch) as case:
        outcome = await worked(case.adapter, attempt(case.ask("ok")))
        assert (outcome.status, outcome.fault) == ("OK", "none")
        assert (outcome.value, outcome.spend) == (case.value, case.spend)


@every_adapter
async def test_what_fails_is_the_workers_fault_and_says_why(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosted(kind, monkeypatch) as case:
        outcome = await worked(case.adapter, attempt(case.ask("fail")))
        assert (outcome.status, outcome.fault) == ("EXEC_ERR", "worker")
        assert "no such thing" in outcome.value
        assert len(outcome.value) <= MAX_DETAIL_CHARS


@every_adapter
async def test_one_failure_is_not_the_next_ones(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with hosted(kind, monkeypatch) as case:
        await worked(case.adapter, attempt(case.ask("fail")))
        outcome = await worked(case.adapter, attempt(case.ask("ok")))
        assert outcome.value == case.value


@every_adapter
async def test_at_the_deadline_it_is_a_timeout_and_nothing_goes_on(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosted(kind, monkeypatch) as case:
        working = asyncio.create_task(worked(case.adapter, attempt(case.ask("wait"), 2.0)))
        await case.started()
        outcome = await working
        assert outcome.status == "TIMEOUT"
        assert await case.stopped()


@every_adapter
async def test_withdrawn_it_stops_what_it_started(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosted(kind, monkeypatch) as case:
        working = asyncio.create_task(case.adapter.run(attempt(case.ask("wait"))))
        await case.started()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert await case.stopped()


@every_adapter
async def test_a_large_value_arrives_whole_or_says_that_it_was_cut(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosted(kind, monkeypatch) as case:
        outcome = await worked(case.adapter, attempt(case.ask("large")))
        assert outcome.status == "OK"
        if outcome.value != "x" * LARGE:
            assert f"of {LARGE + 1} bytes" in outcome.value["cut"]


@every_adapter
async def test_what_is_no_utf8_never_breaks_the_report(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosted(kind, monkeypatch) as case:
        outcome = await worked(case.adapter, attempt(case.ask("not text")))
        assert msgspec.json.decode(msgspec.json.encode(outcome), type=Outcome) == outcome
        assert outcome.status in ("OK", "EXEC_ERR")
        if outcome.status == "OK":
            assert outcome.value["stdout"] == "\N{REPLACEMENT CHARACTER}" * 2


@every_adapter
async def test_attempts_are_worked_on_at_the_same_time(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosted(kind, monkeypatch) as case:
        outcomes = await case.meet()
        assert [outcome.status for outcome in outcomes] == ["OK"] * case.parties


@every_adapter
async def test_the_draft_is_a_worker_that_hosts_itself(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jsonschema_rs

    async with hosted(kind, monkeypatch) as case:
        spec = case.adapter.spec
        jsonschema_rs.validator_for(spec.parameters)
        assert spec.parameters["type"] == "object"
        assert jsonschema_rs.is_valid(spec.parameters, case.ask("ok"))
        assert spec.description
        assert msgspec.json.decode(msgspec.json.encode(spec), type=type(spec)) == spec
