"""Runs as long as one likes, made by the real rules: what the benchmarks of reading read.

A round has eight calls; each report is a commit of its own, as when workers take their time. Some
fail, some are tried again. The last reply answers.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from protocol.actions import MAX_COUNT, Pool, Report, Spend, WorkerSpec
from protocol.budgets import Budget
from protocol.codec import Commit, digest, encode
from protocol.commands import Activate, Command, Inbox, PolicyReply, Start
from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, Task
from protocol.rules import Draft
from protocol.run import RULES, feed
from protocol.state import RunState
from protocol.subjects import run_id
from replay.chain import RunLog, Stored, assemble

WIDTH: Final = 8
"""Calls of one round: with the question, the reply, the plan and the end, 20 events."""

FAILS_EVERY: Final = 50
"""One call in so many fails for good."""

AGAIN_EVERY: Final = 30
"""One attempt in so many is lost, and made again."""

AT: Final = 1_700_000_000_000
"""Milliseconds since the epoch at which the runs begin."""

STEP_MS: Final = 3
"""Milliseconds from one commit to the next."""

_UNBOUNDED: Final = Budget(
    rounds=MAX_COUNT,
    calls=MAX_COUNT,
    parallel=64,
    tokens=MAX_COUNT,
    cost=MAX_COUNT,
    wall_ms=MAX_COUNT,
)
_POOL: Final = Pool(
    (
        WorkerSpec(name="search", kind="agent", description="Finds a thing.", attempts=3),
        WorkerSpec(name="reader", description="Reads a thing.", attempts=3),
    )
)


class Messages(NamedTuple):
    """A run as the store has it."""

    run: str
    commits: list[bytes]
    inbox: list[bytes]
    events: int

    def stored(self) -> tuple[list[Stored], list[Stored]]:
        """Commits and inbox, with sequences."""
        commits = [Stored(seq, data) for seq, data in enumerate(self.commits, 1)]
        return commits, [Stored(seq, data) for seq, data in enumerate(self.inbox, 1)]

    def log(self) -> RunLog:
        """The run as a reader has it."""
        return assemble(self.run, *self.stored())


def run(events: int, number: int = 1) -> Messages:
    """A finished run of at least so many events, and at most a round more.

    Args:
        events: How many.
        number: Which run: each number gives another id.
    """
    name = run_id(number.to_bytes(8, "big"))
    commits: list[bytes] = []
    inbox: list[bytes] = []
    draft, prev = Draft(RunState(), AT), ""
    for command in _commands(name, draft, events, inbox):
        draft.at += STEP_MS
        before = len(draft.events)
        feed(draft, [command])
        if isinstance(command, Start):
            feed(draft, [Activate("conductor-1", RULES)])
        commits.append(encode(commit(name, len(commits) + 1, draft, before, prev)))
        prev = digest(commits[-1])
    return Messages(name, commits, inbox, len(draft.events))


def commit(name: str, number: int, draft: Draft, before: int, prev: str) -> Commit:
    """What a draft has decided since it had so many events, as the next commit of a run.

    Args:
        name: The run's id.
        number: The commit's, from 1.
        draft: What is decided; its causes are taken.
        before: Events that are committed already.
        prev: The hash of the commit before.
    """
    causes = tuple(draft.causes)
    draft.causes.clear()
    return Commit(
        run=name,
        n=number,
        epoch=draft.state.epoch,
        at=draft.at,
        causes=causes,
        events=tuple(draft.events[before:]),
        prev=prev,
    )


def _commands(name: str, draft: Draft, events: int, inbox: list[bytes]) -> Iterator[Command]:
    yield Start(
        run=name,
        task=Task(text="Read everything there is, and say what it comes to."),
        pool=_POOL,
        policy=PolicySpec(name="openai:a-model"),
        budget=_UNBOUNDED,
    )
    state = draft.state
    while len(draft.events) < events:
        number = state.round + 1
        planned = tuple(
            PlannedCall(
                "search" if place % 2 else "reader",
                {"query": f"part {number} of the whole, piece {place}", "limit": place},
                ref=f"call_{number}_{place}",
            )
            for place in range(WIDTH)
        )
        yield PolicyReply(
            state.turn,
            Reply(decision=Decision(calls=planned), latency_ms=700, version="a-model-2026"),
        )
        while state.open:
            call, attempt = next(iter(state.open.items()))
            report = _report(name, call, attempt, len(inbox))
            inbox.append(encode(report))
            yield Inbox(digest(inbox[-1]), report)
    yield PolicyReply(state.turn, Reply(decision=Decision(answer="It comes to a lot.")))


def _report(name: str, call: str, attempt: int, number: int) -> Report:
    lost = number % AGAIN_EVERY == AGAIN_EVERY - 1
    failed = number % FAILS_EVERY == FAILS_EVERY - 1
    found = {
        "found": f"what stands in place {number} of the whole",
        "source": "https://example.org/page",
        "score": number % 97 / 97,
    }
    return Report(
        run=name,
        call=call,
        attempt=attempt,
        status="EXEC_ERR" if lost or failed else "OK",
        fault="infrastructure" if lost else "worker" if failed else "none",
        value="ValueError: no such place" if lost or failed else found,
        spend=Spend(tokens=321, cost=45),
        latency_ms=120 + number % 80,
        by=f"worker-{number % 4}",
    )
