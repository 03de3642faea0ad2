"""Driven runs as messages of a log: what a conductor and workers would have stored of them."""

from collections.abc import Iterable
from typing import Any, Final

from protocol.actions import Report, Spend
from protocol.codec import Commit, blob_ref, digest, encode
from protocol.commands import Inbox
from protocol.decisions import Reply, View
from protocol.errors import InvalidData
from protocol.inbox import Reward
from protocol.subjects import run_id
from replay.chain import Messages, Stored
from replay.memory_log import MemoryStore
from tests.runs import CHILD, POOL, Driver, answer, begin, plan, planned, play

BLOB: Final = b'"' + b"a long value " * 6_000 + b'"'
"""A value that doesn't fit into a message."""

RECORD: Final = b'[{"reply":"what an agent exchanged with its model"}]'
"""Of an agent's attempt."""

MANY: Final = run_id(b"another run....!")


def stored_of(driver: Driver) -> Messages:
    """The two subjects of a run as they stand after its steps."""
    commits: list[Stored] = []
    messages: list[Stored] = []
    prev, seq, known = "", 0, set[str]()
    for before, commands, draft in driver.steps:
        for command in commands:
            if isinstance(command, Inbox) and command.hash not in known:
                data = _bytes(command)
                known.add(command.hash)
                if data is not None:
                    messages.append(Stored(seq := seq + 1, data))
        if not draft.events:
            continue
        commit = Commit(
            run=driver.state.run,
            n=len(commits) + 1,
            epoch=draft.state.epoch,
            at=draft.at,
            causes=tuple(draft.causes),
            events=tuple(draft.events),
            prev=prev,
        )
        assert before.epoch <= commit.epoch
        data = encode(commit)
        prev = digest(data)
        commits.append(Stored(seq := seq + 1, data))
    return Messages(commits, messages)


def _bytes(command: Inbox) -> bytes | None:
    try:
        return encode(command.message)
    except InvalidData:
        return None


def put(store: MemoryStore, run: str, messages: Messages) -> None:
    """Have the messages stand in a store, as they are."""
    store.messages[run, "c"] = list(messages.commits)
    store.messages[run, "i"] = list(messages.inbox)
    last = max((each.seq for each in [*messages.commits, *messages.inbox]), default=0)
    store.skip_to(last)


def family_of(rounds: int = 1) -> list[Driver]:
    """A run with a child run in each round, the root last; a tool and an agent report a blob."""

    def policy(view: View) -> Reply:
        if view.task.text != "What is asked?":
            return plan(planned("tool")) if not view.turns else answer("from below")
        if len(view.turns) < rounds:
            return plan(planned("child", 1), planned("tool", 2), planned("agent", 3))
        return answer("42")

    def work(driver: Driver, call: str) -> Report | None:
        spec = driver.state.calls[call].call.worker
        number = driver.state.calls[call].attempt
        shared: dict[str, Any] = {"run": driver.state.run, "call": call, "attempt": number}
        if spec == "agent":
            shared |= {"spend": Spend(tokens=40, cost=10), "record_blob": blob_ref(RECORD)}
            return Report(**shared, status="OK", value="said", by="agent-1")
        if driver.state.parent is None:
            return Report(**shared, status="OK", blob=blob_ref(BLOB), latency_ms=7)
        return Report(**shared, status="EXEC_ERR", fault="worker", value="it broke")

    assert POOL.get("child") == CHILD
    return play(begin(), policy, work)


def stored_family(store: MemoryStore, rounds: int = 1) -> list[str]:
    """The same in a store, with its blobs and a late reward; the ids, the root first."""
    drivers = family_of(rounds)
    for driver in drivers:
        put(store, driver.state.run, stored_of(driver))
    root = drivers[-1].state.run
    for data in (BLOB, RECORD):
        store.blobs[blob_ref(data).sha256] = data
    reward = Reward(run=root, channel="correct", value=1.0, by="a test")
    last = store.messages[root, "i"][-1].seq
    store.messages[root, "i"].append(Stored(last + 100, encode(reward)))
    store.skip_to(last + 100)
    return [root, *(driver.state.run for driver in drivers[:-1])]


def datas(stored: Iterable[Stored]) -> list[bytes]:
    """Their bytes."""
    return [each.data for each in stored]


__all__ = ["BLOB", "MANY", "RECORD", "datas", "family_of", "put", "stored_family", "stored_of"]
