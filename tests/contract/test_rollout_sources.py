"""What every source of rollouts holds to: the same tasks and policy give the same rollouts."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import pytest

from actors.memory_queue import MemoryQueue
from podium.client import Client
from protocol.budgets import Budget
from protocol.errors import InvalidData
from replay.chain import RunLog
from tests.rollouts import Memory, ask, essence, lane
from trainer.rollouts import (
    Ask,
    FastSource,
    Group,
    LiveSource,
    LogSource,
    RolloutSource,
)

JOB: Final = "job"

WITHIN_S: Final = 60.0
"""Seconds for what is about to come, on a busy machine."""

ASKS: Final = (
    ask("double 3 4", members=3),
    ask("hang", members=2),
    ask("lose", members=2, budget=Budget(rounds=2)),
    ask("circle", members=1),
)


def gathered(source: RolloutSource, count: int) -> list[Group]:
    """That many groups."""
    found: list[Group] = []
    while len(found) < count:
        groups = source.poll(WITHIN_S)
        assert groups, f"{len(found)} of {count} groups, and no more come"
        found += groups
    return found


def fast(asks: tuple[Ask, ...]) -> RolloutSource:
    source = FastSource(lane(at_once=4), JOB)
    source.start()
    source.ask(asks)
    return source


def live(asks: tuple[Ask, ...], memory: Memory | None = None, **options: Any) -> LiveSource:
    source = LiveSource((memory or Memory()).connect, JOB, **options)
    source.start()
    source.ask(asks)
    return source


def logged(asks: tuple[Ask, ...]) -> RolloutSource:
    """Of a log that the runs of a deployment have left."""
    memory = Memory()
    made = live(asks, memory)
    gathered(made, len(asks))
    made.stop()
    source = LogSource(memory.connect)
    source.start()
    return source


Makes = Callable[[tuple[Ask, ...]], RolloutSource]


@pytest.fixture(params=[fast, live, logged], ids=["fast", "live", "log"])
def makes(request: pytest.FixtureRequest) -> Iterator[Makes]:
    opened: list[RolloutSource] = []

    def make(asks: tuple[Ask, ...]) -> RolloutSource:
        opened.append(request.param(asks))
        return opened[-1]

    yield make
    for source in opened:
        source.stop()


EXPECTED: Final = {
    "double 3 4": ("finished", "28", ""),
    "hang": ("finished", "['TIMEOUT']", ""),
    "circle": ("finished", "dizzy", ""),
    "lose": ("failed", "", "infrastructure"),
}
"""Outcome, answer, and why it can't be scored, by the task's text."""


def test_the_same_tasks_give_the_same_rollouts(makes: Makes) -> None:
    source = makes(ASKS)
    groups = gathered(source, len(ASKS))
    by_text = {group.rollouts[0].log.state().task.text: group for group in groups}
    assert by_text.keys() == EXPECTED.keys()
    for each in ASKS:
        group = by_text[each.task.text]
        known = [ended.log.state() for ended in group.rollouts]
        assert len(known) == each.members
        assert group.missing == ()
        assert group.versions == ("1",)
        seen = [
            (state.outcome, state.answer, ended.rollout.unscorable)
            for state, ended in zip(known, group.rollouts, strict=True)
        ]
        assert seen == [EXPECTED[each.task.text]] * each.members
    with contextlib.closing(_Fast()) as reference:
        same = {group.key: [essence(each) for each in group.rollouts] for group in reference.groups}
    for text, group in by_text.items():
        assert [essence(each) for each in group.rollouts] == same[text]
    assert source.poll(0.01) == []
    assert source.done
    assert source.version == "1"


class _Fast:
    """What the fast lane makes of the same."""

    def __init__(self) -> None:
        self.source = fast(ASKS)
        self.groups = gathered(self.source, len(ASKS))

    def close(self) -> None:
        self.source.stop()


def test_it_says_how_it_is_doing(makes: Makes) -> None:
    source = makes(ASKS[:3])
    gathered(source, 3)
    health = source.health()
    assert (health.given, health.rollouts, health.unscorable) == (3, 7, 2)
    assert (health.waiting, health.in_flight, health.error) == (0, 0, "")


def test_stopping_it_twice_is_stopping_it(makes: Makes) -> None:
    source = makes(ASKS[:1])
    source.stop()
    source.stop()


# ---------------------------------------------------------------------------------- that are asked


@pytest.fixture(params=[fast, live], ids=["fast", "live"])
def asking(request: pytest.FixtureRequest) -> Iterator[Callable[[tuple[Ask, ...]], Any]]:
    opened: list[Any] = []

    def make(asks: tuple[Ask, ...]) -> Any:
        opened.append(request.param(asks))
        return opened[-1]

    yield make
    for source in opened:
        source.stop()


def test_the_same_job_has_the_same_runs(asking: Callable[[tuple[Ask, ...]], Any]) -> None:
    one, other = (gathered(asking(ASKS[:1]), 1)[0] for _ in range(2))
    assert [each.run for each in one.rollouts] == [each.run for each in other.rollouts]


def test_more_is_asked_for_while_it_is_at_work(asking: Callable[[tuple[Ask, ...]], Any]) -> None:
    source = asking(ASKS[:1])
    source.ask([ask("double 1", "second")])
    assert {group.key for group in gathered(source, 2)} == {"double 3 4", "second"}
    assert source.done
    source.ask(ask("double 2", str(n)) for n in range(3))
    assert not source.done
    assert [group.key for group in sorted(gathered(source, 3), key=lambda g: g.key)] == list("012")


def test_an_endless_series_is_begun_as_there_is_room() -> None:
    taken: list[int] = []

    def endless() -> Iterator[Ask]:
        for n in range(10**6):
            taken.append(n)
            yield ask("double 1", str(n), members=2)

    quick = FastSource(lane(at_once=4), JOB)
    slow = LiveSource(Memory().connect, JOB, in_flight=4)
    for source in (quick, slow):
        taken.clear()
        source.start()
        source.ask(endless())
        gathered(source, 5)
        assert len(taken) <= 5 + 6
        assert source.health().in_flight <= 4
        source.stop()


def test_two_groups_of_one_key_are_refused() -> None:
    twice = (ask("double 3"), ask("double 4", "double 3"))
    source = fast(twice)
    with pytest.raises(Exception, match="two groups are asked for by the key 'double 3'"):
        source.poll(WITHIN_S)
    source.stop()
    other = LiveSource(Memory(conducted=False).connect, JOB)
    other.start()
    with pytest.raises(Exception, match="two groups are asked for"):
        other.ask(twice)
    other.stop()


# ----------------------------------------------------------------------------------------- live


def test_a_group_is_closed_when_its_time_is_up() -> None:
    memory = Memory(conducted=False)
    source = live(ASKS[:1], memory, timeout_s=0.2)
    (group,) = gathered(source, 1)
    assert group.rollouts == ()
    assert len(group.missing) == 3
    assert source.done
    source.stop()


def test_a_source_that_goes_on_finds_its_runs_and_begins_none_again() -> None:
    memory = Memory()
    first = live(ASKS[:2], memory)
    began = [each.run for group in gathered(first, 2) for each in group.rollouts]
    first.stop()
    assert sorted(memory.submitted) == sorted(began)
    again = live(ASKS[:2], memory)
    found = [each.run for group in gathered(again, 2) for each in group.rollouts]
    assert sorted(found) == sorted(began)
    assert len(memory.submitted) == len(began), "nothing was submitted"
    again.stop()


def test_what_cannot_be_connected_to_is_said() -> None:
    opened: list[Client] = []

    @contextlib.asynccontextmanager
    async def nobody() -> AsyncIterator[Client]:
        if opened:
            yield opened[0]
        raise ConnectionError("nobody answers")

    for source in (LiveSource(nobody, JOB), LogSource(nobody)):
        with pytest.raises(ConnectionError, match="nobody answers"):
            source.start()
        source.stop()


# ------------------------------------------------------------------------------------------ a log


def test_a_log_is_gone_on_with_where_another_has_stopped() -> None:
    memory = Memory()
    made = live(ASKS[:3], memory)
    gathered(made, 3)
    first = LogSource(memory.connect)
    first.start()
    (group,) = first.poll(WITHIN_S)
    position = first.position
    first.stop()
    assert position.given == tuple(sorted(each.run for each in group.rollouts))
    second = LogSource(memory.connect, position=position)
    second.start()
    rest = gathered(second, 2)
    given = {each.run for each in (*group.rollouts, *(one for g in rest for one in g.rollouts))}
    assert len(given) == 7, "each once"
    made.ask([ask("double 9", "later")])
    gathered(made, 1)
    (later,) = gathered(second, 1)
    assert later.rollouts[0].log.state().task.text == "double 9"
    second.stop()
    made.stop()


def test_a_group_of_a_log_waits_for_those_that_go_on() -> None:
    memory = Memory()
    made = live(ASKS[:1], memory)
    (group,) = gathered(made, 1)
    made.stop()
    run = group.rollouts[0].run
    store = memory.log.store.messages  # type: ignore[attr-defined]
    end = store[run, "c"].pop()
    waits = LogSource(memory.connect)
    waits.start()
    assert waits.poll(WITHIN_S) == []
    store[run, "c"].append(end)
    (whole,) = gathered(waits, 1)
    assert len(whole.rollouts) == 3
    waits.stop()
    store[run, "c"].pop()
    late = LogSource(memory.connect, timeout_s=0.0)
    late.start()
    (ragged,) = gathered(late, 1)
    assert (len(ragged.rollouts), ragged.missing) == (2, (run,))
    late.stop()


def test_a_run_that_cannot_be_read_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory()
    made = live(ASKS[:2], memory)
    runs = sorted(each.run for group in gathered(made, 2) for each in group.rollouts)
    made.stop()

    class Damaged(Client):
        lost = runs[0]
        whole_only = False
        """Whether its beginning can be read."""

        async def log(self, run: str, until: int | None = None) -> RunLog:
            if run == self.lost and not (self.whole_only and until):
                raise InvalidData("its file is damaged")
            return await super().log(run, until)

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[Client]:
        async with memory.connect() as client:
            yield Damaged(client.reader, MemoryQueue({}))

    for Damaged.whole_only in (False, True):
        source = LogSource(connect)
        source.start()
        groups = gathered(source, 2)
        assert sorted(each.run for group in groups for each in group.rollouts) == runs[1:]
        assert source.poll(WITHIN_S) == []
        source.stop()
        assert f"run {runs[0]} is left out: its file is damaged" in caplog.text
        caplog.clear()


def test_runs_of_two_versions_are_two_groups() -> None:
    from tests import rollouts

    memory = Memory()
    made = live((), memory)
    try:
        for version in ("1", "2"):
            rollouts.SCRIPT.version = version
            made.ask([ask("double 1", f"of {version}")])
            gathered(made, 1)
    finally:
        rollouts.SCRIPT.version = "1"
    made.stop()
    source = LogSource(memory.connect)
    source.start()
    assert [group.versions for group in gathered(source, 2)] == [("1",), ("2",)]
    source.stop()
