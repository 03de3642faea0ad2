"""What a run was begun with is hidden by whoever goes on with it, whatever they declare themselves.

Real conductors and workers over memory, which know the well-known secrets and no others: the
pattern and the name of these runs stand in their logs alone.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from actors.memory_queue import MemoryQueue
from actors.ports import Attempt, Outcome
from actors.waking import queue_again
from podium.checks import check_begun
from podium.cli.launch import of_run
from podium.client import Client
from podium.config import BudgetTable
from podium.poolfile import LoadedPool
from protocol import subjects
from protocol.actions import Pool, WorkerSpec
from protocol.codec import CallMessage, encode
from protocol.commands import Fork, Start
from protocol.decisions import Decision, View
from protocol.errors import Conflict, InvalidData, NotFound
from protocol.events import Edit, RunForked, RunStarted
from protocol.inbox import Label, Reward
from protocol.redaction import Redactor
from protocol.run import step
from protocol.secret_forms import (
    EVERYTHING,
    MAX_KEY_CHARS,
    MAX_NAMES,
    MAX_PATTERN_CHARS,
    MAX_PATTERNS,
    Redaction,
)
from protocol.state import RunState
from replay.chain import RunLog
from replay.forks import failure, origin_at
from replay.history import entries
from replay.memory_log import MemoryLog
from replay.verify import verify_run
from tests.archives import Deployment
from tests.runs import begin
from tests.stored import stored_family
from tests.world import World, calls

NUMBER: Final = "EMP-PLANTED-9"
PIN: Final = "planted-pin-10"
HIDDEN: Final = Redaction(names=("pin",), patterns=(r"EMP-[A-Z0-9-]+",))
TOOL: Final = WorkerSpec(name="tool", attempts=1)
BELOW: Final = WorkerSpec(name="below", kind="conductor", attempts=1)


class Office:
    """A deployment that hides nothing of its own, and people who do."""

    def __init__(self) -> None:
        self.world = World(look_s=0.05)
        self.asked: list[str] = []
        """What the worker was given."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.broken = True

    async def work(self, attempt: Attempt) -> Outcome:
        self.asked.append(str(attempt.arguments))
        await self.gate.wait()
        if attempt.arguments.get("fail") and self.broken:
            raise ValueError(f"of {NUMBER}, pin='{PIN}'")
        return Outcome(value={"number": f"it is {NUMBER}", "pin": PIN})

    def decide(self, view: View) -> Decision:
        if view.task.text.startswith("below"):
            return Decision(answer=f"{NUMBER} below")
        if not view.turns:
            said = {"of": NUMBER, "pin": PIN}
            return calls(("tool", said), ("tool", {"fail": 1}), ("below", {"task": "below"}))
        return Decision(answer=f"I saw {NUMBER}, pin='{PIN}'")

    def client(self, redaction: Redaction = EVERYTHING) -> Client:
        """Somebody who declares that."""
        return Client(self.world.log, self.world.tasks, look_s=0.05, redactor=Redactor(redaction))

    async def begin(self) -> str:
        """A run of somebody who hides numbers and pins."""
        task = f"Find {NUMBER}."
        policy = self.world.policies["script"].spec
        return await self.client(HIDDEN).submit(task, self.world.pool, policy)

    def stored(self) -> str:
        """All that was ever stored."""
        assert isinstance(self.world.log, MemoryLog)
        store = self.world.log.store
        data = [stored.data for each in store.messages.values() for stored in each]
        return b"\n".join([*data, *store.blobs.values()]).decode()


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    office = Office()
    office.world.policy(office.decide)
    office.world.pool = Pool((BELOW,))
    await office.world.worker(TOOL, office.work)
    await office.world.conductor()
    yield office
    await office.world.close()


def shows(text: str) -> list[str]:
    """Which secrets stand there."""
    return [secret for secret in (NUMBER, PIN) if secret in text]


async def sound(office: Office, *runs: str) -> None:
    """Raise unless the rules give these runs again."""
    for run in runs:
        assert (await verify_run(office.world.log, run)).problems == ()


async def test_a_run_hides_what_it_was_begun_with_from_all_that_is_stored(office: Office) -> None:
    log = await office.world.ended(await office.begin())
    assert log.state().redact == HIDDEN
    assert shows(office.stored() + str(office.asked)) == []
    assert log.state().answer == "I saw [redacted:pattern_1], pin='[redacted:pin]'"
    found = [str(entry.message) for entry in log.inbox]
    assert any("it is [redacted:pattern_1]" in text for text in found)
    assert any("of [redacted:pattern_1], pin='[redacted:pin]'" in text for text in found)
    (child,) = [run for run in await office.world.log.runs() if run != log.run]
    below = await office.world.ended(child)
    assert below.state().redact == HIDDEN
    assert below.state().answer == "[redacted:pattern_1] below"
    await sound(office, log.run, child)


async def test_forks_of_those_who_declare_nothing_hide_it_too(office: Office) -> None:
    log = await office.world.ended(await office.begin())
    office.broken = False
    found = failure(log)
    assert found is not None
    plain = office.client()
    (rerun,) = await plain.fork(log.run, found.at, reopened=found.reopened, reason=f"for {NUMBER}")
    again = await office.world.ended(rerun)
    edit = Edit("calls.1-0.value", {"pin": PIN, "is": NUMBER})
    (forked,) = await plain.fork(rerun, found.at + 1, edits=(edit,))
    await office.world.ended(forked)
    await plain.signal(await held(office), "pause", reason=NUMBER)
    assert shows(office.stored() + str(office.asked)) == []
    assert "for [redacted:pattern_1]" in office.stored()
    events = (*again.events(), *(await office.world.log.read(forked)).events())
    assert {each.redact for each in events if isinstance(each, RunForked)} == {None}
    await sound(office, rerun, forked)


async def held(office: Office) -> str:
    """A run that waits for its worker."""
    office.gate.clear()
    run = await office.begin()
    await office.world.until(run, lambda log: bool(log.state().open))
    return run


async def test_who_judges_it_and_declares_nothing_hides_it_too(office: Office) -> None:
    log = await office.world.ended(await office.begin())
    plain = office.client()
    await plain.label(log.run, "note", {"of": [NUMBER], "pin": PIN})
    await plain.label(log.run, "pin", PIN)
    await plain.reward(log.run, "accuracy", 0.5)
    assert shows(office.stored()) == []
    log = await plain.log(log.run)
    said = [entry.message for entry in log.inbox if isinstance(entry.message, Label | Reward)]
    assert [each.value for each in said] == [
        {"of": ["[redacted:pattern_1]"], "pin": "[redacted:pin]"},
        "[redacted:pin]",
        0.5,
    ]


async def test_what_a_run_hides_has_to_be_known_to_say_a_word_of_it(tmp_path: Path) -> None:
    there = Deployment(tmp_path / "archive")
    run, *_ = stored_family(there.store)
    await there.archive([run])
    client = Client(there.live, MemoryQueue({}))
    with pytest.raises(NotFound, match="it isn't known what it hides") as raised:
        await client.label(run, "note", NUMBER)
    assert "[archive] url" in raised.value.hint
    await client.reward(run, "accuracy", 1.0)
    await Client(there.readers(), MemoryQueue({})).label(run, "note", "good")
    said = [entry.message for entry in (await client.log(run)).inbox]
    assert [each.value for each in said if isinstance(each, Label | Reward)] == [1.0, "good"]


async def test_a_conductor_that_takes_over_hides_it_too(office: Office) -> None:
    run = await held(office)
    await office.world.conductors.pop().stop()
    office.gate.set()
    await office.world.conductor("c2")
    log = await office.world.ended(run)
    assert log.state().epoch == 2
    assert log.state().answer == "I saw [redacted:pattern_1], pin='[redacted:pin]'"
    assert shows(office.stored()) == []


async def test_a_fork_records_what_its_maker_hides_besides(office: Office) -> None:
    log = await office.world.ended(await office.begin())
    more = Redaction(names=("pin",), patterns=("it is .+", *HIDDEN.patterns))
    at = next(e.number for e in entries(log) if isinstance(e.event, RunStarted))
    (forked,) = await office.client(more).fork(log.run, at + 1)
    found = await office.world.ended(forked)
    event = next(each for each in found.events() if isinstance(each, RunForked))
    assert event.redact == Redaction(patterns=("it is .+",))
    assert found.state().redact == Redaction(
        names=("pin",), patterns=(*HIDDEN.patterns, "it is .+")
    )
    values = [str(entry.message) for entry in found.inbox]
    assert any("'number': '[redacted:pattern_2]'" in text for text in values)
    await sound(office, forked)


async def test_of_a_log_that_records_nothing_the_deployment_at_hand_decides(
    office: Office,
) -> None:
    log = await office.world.ended(await office.world.submit(office.world.start()))
    assert log.state().redact is None
    assert b"redact" not in encode(log.commits[0])
    at = next(e.number for e in entries(log) if isinstance(e.event, RunStarted))
    (forked,) = await office.client(HIDDEN).fork(log.run, at + 1)
    found = await office.world.ended(forked)
    assert found.state().redact == HIDDEN
    assert shows(str(found.inbox) + found.state().answer) == []


# ------------------------------------------------------------------------- what is no pattern

BAD: Final = [
    (Redaction(patterns=("(",)), r"redact.patterns[0]: '(' is no regular expression"),
    (Redaction(patterns=tuple(f"x{n}+" for n in range(999))), "redact.patterns: "),
    (Redaction(patterns=("x+" * 999,)), "redact.patterns[0] has 1998 characters"),
    (Redaction(names=("x" * 999,)), "redact.names[0]"),
]


def broken(office: Office, redact: Redaction) -> Start:
    """A task that no client would queue."""
    return msgspec.structs.replace(office.world.start(), redact=redact)


@pytest.mark.parametrize(("redact", "says"), BAD)
async def test_a_task_with_what_is_no_pattern_is_set_aside(
    office: Office, redact: Redaction, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    start = broken(office, redact)
    await office.world.submit(start)
    good = await office.world.ended(await office.begin())
    assert good.state().outcome == "finished"
    assert office.world.conductors[0].counts["aside"] == 1
    text = f"run {start.run} records what can't be looked for: {says}"
    assert said(await told(office, start.run))[0].startswith(text)
    assert text in caplog.text


async def test_a_client_queues_no_more_patterns_than_may_be_recorded(office: Office) -> None:
    log = await office.world.ended(await office.begin())
    others = tuple(f"x{number}+" for number in range(MAX_PATTERNS))
    many = office.client(Redaction(patterns=others))
    with pytest.raises(InvalidData, match="patterns: 65 of them; at most 64 are possible"):
        await many.fork(log.run, 2)
    more = office.client(Redaction(patterns=(*others, "y+")))
    with pytest.raises(InvalidData, match="patterns: 65 of them; at most 64 are possible"):
        await more.submit("x", office.world.pool, office.world.policies["script"].spec)


async def told(office: Office, run: str) -> RunLog:
    """The log of a run, once it says that it could not be begun, or gone on with."""
    heard = asyncio.Event()
    hints = await office.world.log.hints(run, lambda *_: heard.set())
    async with asyncio.timeout(10):
        while not said(log := await office.world.log.read(run)):
            await heard.wait()
            heard.clear()
    await hints.close()
    return log


def said(log: RunLog) -> list[str]:
    """What conductors said of a run in its inbox."""
    found = [entry.message for entry in log.inbox]
    return [str(each.value) for each in found if isinstance(each, Label)]


async def recorded(office: Office, redact: Redaction) -> RunLog:
    """A run whose log holds what is no pattern: a stranger's, or one of another Python."""
    run = await held(office)
    log = await office.world.log.read(run)
    await office.world.conductors.pop().stop()
    assert isinstance(office.world.log, MemoryLog)
    messages = office.world.log.store.messages[run, "c"]
    (first,) = log.commits
    started = msgspec.structs.replace(first.events[0], redact=redact)
    forged = msgspec.structs.replace(first, events=(started, *first.events[1:]))
    messages[0] = type(messages[0])(messages[0].seq, encode(forged))
    return await office.world.log.read(run)


@pytest.mark.parametrize(("redact", "says"), BAD)
async def test_a_log_with_what_is_no_pattern_is_an_error_that_names_it(
    office: Office, redact: Redaction, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = await recorded(office, redact)
    assert log.state().redact == redact, "it can be looked at"
    caplog.set_level(logging.WARNING)
    text = f"run {log.run} records what can't be looked for: {says}"
    conductor = await office.world.conductor("c2")
    await queue_again(office.world.log, office.world.tasks, log.run)
    assert said(await told(office, log.run))[0].startswith(text)
    assert text in caplog.text
    assert conductor.counts["broken"] == 0
    for refused in (
        office.client().fork(log.run, 2),
        office.client().signal(log.run, "pause", reason="x"),
    ):
        with pytest.raises(InvalidData) as raised:
            await refused
        assert raised.value.message.startswith(text)
        assert raised.value.hint
    fork = Fork(run=office.client().new_run(), origin=origin_at(log, 2))
    await office.world.tasks.put(subjects.task("normal", fork.run), encode(fork))
    with pytest.raises(Conflict, match="could not be begun"):
        check_begun(await told(office, fork.run))


async def test_a_call_with_what_is_no_pattern_is_set_aside(office: Office) -> None:
    run = begin().run
    message = CallMessage(
        run=run, call="1-0", attempt=1, worker="tool", arguments={}, timeout_ms=9, redact=BAD[0][0]
    )
    subject = subjects.call("tool", "normal", run, "1-0", 1)
    await office.world.calls.put(subject, encode(message))
    await office.world.ended(await office.begin())
    assert office.world.workers[0].counts["aside"] == 1
    assert office.world.workers[0].counts["broken"] == 0


# ------------------------------------------------------------------------- redactors


def test_a_redactor_with_nothing_more_to_hide_is_the_very_same() -> None:
    own = Redactor(HIDDEN, {"${secret:DB}": "planted-value"})
    assert own.also(None, "r") is own
    assert own.also(EVERYTHING, "r") is own
    assert own.also(HIDDEN, "r") is own
    assert own.also(Redaction(names=("pin",)), "r") is own
    more = own.also(Redaction(names=("badge",), patterns=(r"B\d+",)), "r")
    assert more.also(HIDDEN, "r") is more
    assert own.also(Redaction(names=("badge",), patterns=(r"B\d+",)), "r") is more
    assert more.text(f"planted-value badge='x' B7 {NUMBER}") == (
        "${secret:DB} badge='[redacted:badge]' [redacted:pattern_1] [redacted:pattern_2]"
    )


def test_what_either_hides_is_hidden() -> None:
    off = Redaction(defaults=False)
    assert off.union(EVERYTHING).defaults
    assert EVERYTHING.union(off).defaults
    assert not off.union(None).defaults
    assert EVERYTHING.beyond(off) == EVERYTHING
    assert off.beyond(EVERYTHING) is None
    assert off.beyond(None) == off
    assert HIDDEN.beyond(Redaction(names=("pin",))) == Redaction(patterns=HIDDEN.patterns)
    assert Redactor(off).also(EVERYTHING, "r").value({"password": "x"}) != {"password": "x"}


@pytest.mark.parametrize(
    ("redaction", "says"),
    [
        *BAD,
        *(
            (Redaction(patterns=(each,)), "redact.patterns[0]")
            for each in ("(?L)x", "x{9999999999}")
        ),
        (Redaction(names=("x",) * (MAX_NAMES + 1)), "redact.names: 257 of them"),
        (Redaction(patterns=("Bluebird",)), "redact.patterns[0]: 'Bluebird' spells out"),
    ],
)
def test_what_no_run_may_record_is_refused(redaction: Redaction, says: str) -> None:
    with pytest.raises(InvalidData) as raised:
        redaction.check()
    assert raised.value.message.startswith(says)
    assert raised.value.hint


def test_what_is_hosted_for_a_run_hides_what_it_recorded_in_its_own_logs_too() -> None:
    pool = LoadedPool(Path("p"), "p", Pool(()), "rules", BudgetTable(), Redaction(names=("badge",)))
    state = step(RunState(), [begin(redact=HIDDEN)], 1).state
    assert of_run(pool, state).redact == Redaction(names=("badge", "pin"), patterns=HIDDEN.patterns)


def test_as_much_as_may_be_recorded_fits_into_a_first_commit() -> None:
    patterns = ("x+" * (MAX_PATTERN_CHARS // 2),) * MAX_PATTERNS
    most = Redaction(names=("n" * MAX_KEY_CHARS,) * MAX_NAMES, patterns=patterns)
    most.check()
    spec = WorkerSpec(name="tool", description="d" * 261_000)
    start: Any = begin(pool=Pool((spec,)), task="t" * 65_000, redact=most)
    assert len(encode(start)) < 524_288
