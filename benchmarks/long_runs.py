"""Runs as long as one likes, made by the real rules, without a broker or a worker.

A round has eight calls; each report is a commit of its own, as when workers take their time. Some
fail, some are tried again. The last reply answers.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from protocol.actions import MAX_COUNT, Pool, Report, WorkerSpec
from protocol.budgets import Budget
from protocol.codec import Commit, digest, encode
from protocol.commands import Activate, Command, Inbox, PolicyReply, Start
from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, Task
from protocol.rules import Draft
from protocol.run import RULES, feed
from protocol.state import RunState
from protocol.subjects import run_id
from replay.chain import RunLog, Stored, assemble

RUN: Final = run_id(b"a run for measuring")
AT: Final = 1_700_000_000_000
WIDTH: Final = 8
"""Calls of one round: with the question, the reply, the plan and the end, 20 events."""

FAILS_EVERY: Final = 50
"""One call in so many fails for good."""

AGAIN_EVERY: Final = 30
"""One attempt in so many is lost, and made again."""

STEP_MS: Final = 3
"""Milliseconds from one commit to the next."""

_POOL: Final = Pool(
    (
        WorkerSpec(name="search", kind="agent", description="Finds a thing.", attempts=3),
        WorkerSpec(name="reader", description="Reads a thing.", attempts=3),
    )
)


class Messages(NamedTuple):
    """A run's two subjects, as a store has them."""

    commits: list[Stored]
    inbox: list[Stored]

    def log(self) -> RunLog:
        """The run as a reader has it."""
        return assemble(RUN, self.commits, self.inbox)


def messages(events: int) -> Messages:
    """A finished run of at least so many events, and at most a round more."""
    made = Messages([], [])
    draft, prev = Draft(RunState(), AT), ""
    for command in _commands(draft, events, made.inbox):
        draft.at += STEP_MS
        before = len(draft.events)
        feed(draft, [command])
        if isinstance(command, Start):
            feed(draft, [Activate("c1", RULES)])
        commit = Commit(
            run=RUN,
            n=len(made.commits) + 1,
            epoch=draft.state.epoch,
            at=draft.at,
            causes=tuple(draft.causes),
            events=tuple(draft.events[before:]),
            prev=prev,
        )
        draft.causes.clear()
        data = encode(commit)
        made.commits.append(Stored(len(made.commits) + 1, data))
        prev = digest(data)
    return made


def _commands(draft: Draft, events: int, inbox: list[Stored]) -> Iterator[Command]:
    yield Start(
        run=RUN,
        task=Task(text="Read everything there is, and say what it comes to."),
        pool=_POOL,
        policy=PolicySpec(name="openai:a-model"),
        budget=Budget(rounds=MAX_COUNT, calls=MAX_COUNT, parallel=64, wall_ms=MAX_COUNT),
    )
    state = draft.state
    while len(draft.events) < events:
        number = state.round + 1
        planned = tuple(
            PlannedCall(
                "search" if index % 2 else "reader",
                {"query": f"part {number} of the whole, piece {index}", "limit": index},
                ref=f"call_{number}_{index}",
            )
            for index in range(WIDTH)
        )
        yield PolicyReply(
            state.turn,
            Reply(decision=Decision(calls=planned), latency_ms=700, version="a-model-2026"),
        )
        while state.open:
            call, attempt = next(iter(state.open.items()))
            data = encode(_report(call, attempt, len(inbox)))
            inbox.append(Stored(len(inbox) + 1, data))
            yield Inbox(digest(data), _report(call, attempt, len(inbox) - 1))
    yield PolicyReply(state.turn, Reply(decision=Decision(answer="It comes to a lot.")))


def _report(call: str, attempt: int, number: int) -> Report:
    lost = number % AGAIN_EVERY == AGAIN_EVERY - 1
    failed = number % FAILS_EVERY == FAILS_EVERY - 1
    value = {"found": f"what stands in place {number}", "score": number % 97 / 97}
    return Report(
        run=RUN,
        call=call,
        attempt=attempt,
        status="EXEC_ERR" if lost or failed else "OK",
        fault="infrastructure" if lost else "worker" if failed else "none",
        value="ValueError: no such place" if lost or failed else value,
        latency_ms=120 + number % 80,
        by=f"worker-{number % 4}",
    )
