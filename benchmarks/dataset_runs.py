"""Short runs with tokens, made by the real rules: what rollouts are read from."""

from typing import Final

from benchmarks.synthetic import commit
from protocol.actions import Pool, Report, WorkerSpec
from protocol.codec import digest, encode
from protocol.commands import Activate, Command, Inbox, PolicyReply, Start
from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, Task
from protocol.dialects import render
from protocol.inbox import Reward
from protocol.rules import Draft
from protocol.run import RULES, feed
from protocol.sampled import Arrays, Sampled, pack_floats, pack_ids
from protocol.state import RunState
from protocol.subjects import run_id
from replay.chain import Stored
from replay.memory_log import MemoryLog, MemoryStore

AT: Final = 1_700_000_000_000
"""Milliseconds since the epoch at which the runs begin."""

GROUP: Final = 4
"""Runs of one task."""

ROUNDS: Final = 2
"""Before the answer, of two calls each."""

PROMPT, REPLY = 120, 40
"""Tokens that each question adds, and that each reply has."""

_POOL: Final = Pool(
    tuple(WorkerSpec(name=f"worker_{n}", description="Looks up.") for n in range(8))
)
_POLICY: Final = PolicySpec(name="local:model", dialect="hermes")


def filled(count: int) -> MemoryLog:
    """A log with so many finished runs, every second of them rewarded."""
    store = MemoryStore()
    for number in range(count):
        _run(store, number)
    return MemoryLog(store)


def _run(store: MemoryStore, number: int) -> None:
    name = run_id(number.to_bytes(8, "big"))
    draft = Draft(RunState(), AT + number)
    commits: list[Stored] = []
    inbox: list[Stored] = []
    prev = ""

    def take(*commands: Command) -> None:
        nonlocal prev
        draft.at += 10
        before = len(draft.events)
        for command in commands:
            feed(draft, [command])
        data = encode(commit(name, len(commits) + 1, draft, before, prev))
        prev = digest(data)
        commits.append(Stored(2 * len(commits) + 1, data))

    task = Task(text=f"Look up the thing of number {number // GROUP}.")
    start = Start(run=name, task=task, pool=_POOL, policy=_POLICY)
    take(start, Activate("conductor-1", RULES))
    for turn in range(1, ROUNDS + 2):
        take(PolicyReply(draft.state.turn, _reply(turn)))
        while draft.state.open:
            call, attempt = next(iter(draft.state.open.items()))
            value = f"what call {call} found"
            report = Report(run=name, call=call, attempt=attempt, status="OK", value=value)
            data = encode(report)
            inbox.append(Stored(2 * len(inbox) + 2, data))
            take(Inbox(digest(data), report))
    reward = Reward(run=name, channel="accuracy", value=float(number % 2), by="benchmark")
    inbox.append(Stored(2 * len(inbox) + 2, encode(reward)))
    store.messages[name, "c"] = commits
    store.messages[name, "i"] = inbox


def _reply(turn: int) -> Reply:
    decision = Decision(answer="It is there.")
    if turn <= ROUNDS:
        calls = (PlannedCall(f"worker_{n}", {"of": f"part {turn}"}) for n in range(2))
        decision = Decision(calls=tuple(calls))
    ids = range(turn * 1_000, turn * 1_000 + PROMPT + REPLY)
    arrays = Arrays(pack_ids(ids[:PROMPT]), pack_ids(ids[PROMPT:]), pack_floats([-0.5] * REPLY))
    sampled = Sampled(after=turn - 1, arrays=arrays, version="000001", tokenizer="t", template="c")
    said = render(_POLICY, decision, _POOL)
    return Reply(text=said.text, sampled=sampled, version="000001")
