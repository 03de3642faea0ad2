"""Long runs, made by the real rules without a conductor: what the benchmarks of reading read."""

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
from replay.chain import Stored

PARALLEL: Final = 4
"""Calls of one round: what a conductor typically sends at once."""

AT: Final = 1_700_000_000_000
"""Milliseconds since the epoch at which the runs begin."""

_UNBOUNDED: Final = Budget(
    rounds=MAX_COUNT, calls=MAX_COUNT, tokens=MAX_COUNT, cost=MAX_COUNT, wall_ms=10**12
)
_POOL: Final = Pool(
    (
        WorkerSpec(
            name="search",
            kind="agent",
            description="Looks something up.",
            parameters={"type": "object", "properties": {"query": {"type": "string"}}},
        ),
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


class _Writer:
    def __init__(self, run: str) -> None:
        self.run, self.prev, self.at = run, "", AT
        self.draft = Draft(RunState(), AT)
        self.commits: list[bytes] = []
        self.inbox: list[bytes] = []

    def give(self, *commands: Command) -> None:
        """One commit."""
        self.at += 7
        draft, count = self.draft, len(self.draft.events)
        draft.at, draft.causes = self.at, []
        feed(draft, commands)
        commit = Commit(
            run=self.run,
            n=len(self.commits) + 1,
            epoch=1,
            at=self.at,
            causes=tuple(draft.causes),
            events=tuple(draft.events[count:]),
            prev=self.prev,
        )
        data = encode(commit)
        self.prev = digest(data)
        self.commits.append(data)

    def report(self, call: str) -> Inbox:
        """A worker's report of a call, in the inbox."""
        value = {"text": f"What was found for {call}. " * 4, "source": "https://example.org/page"}
        report = Report(
            run=self.run,
            call=call,
            attempt=1,
            status="OK",
            value=value,
            spend=Spend(tokens=321, cost=45),
            latency_ms=1_234,
            by="worker-search-1",
        )
        data = encode(report)
        self.inbox.append(data)
        return Inbox(digest(data), report)


def run(events: int, number: int = 1, *, ended: bool = False) -> Messages:
    """A run of at least so many events: rounds of parallel calls, each report a commit.

    Args:
        events: How many.
        number: Which run: each number gives another id.
        ended: Whether an answer is given at the end.
    """
    writer = _Writer(run_id(number.to_bytes(8, "big")))
    start = Start(
        run=writer.run,
        task=Task(text="A long task."),
        pool=_POOL,
        policy=PolicySpec(name="script"),
        budget=_UNBOUNDED,
    )
    writer.give(start, Activate("conductor-1", RULES))
    turn = 0
    while len(writer.draft.events) < events:
        turn += 1
        calls = tuple(
            PlannedCall("search", {"query": f"question {turn}-{place}"})
            for place in range(PARALLEL)
        )
        reply = Reply(decision=Decision(calls=calls), text="I look for these.", version="script-1")
        writer.give(PolicyReply(turn, reply))
        for place in range(PARALLEL):
            writer.give(writer.report(f"{turn}-{place}"))
    if ended:
        reply = Reply(decision=Decision(answer="Found."), version="script-1")
        writer.give(PolicyReply(turn + 1, reply))
    return Messages(writer.run, writer.commits, writer.inbox, len(writer.draft.events))
