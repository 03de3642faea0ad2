"""Rollouts for tests of data sets: real logs of runs that were driven in memory, with tokens.

A run's tokens are the bytes of a plain chat template; the one that ends a reply is byte 0.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Any, Final

from msgspec.structs import replace

from protocol.actions import Fault, Json, Pool, Status, WorkerSpec
from protocol.budgets import Budget
from protocol.codec import digest, encode
from protocol.commands import Start
from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, Task
from protocol.dialects import render, request
from protocol.inbox import Label, Reward
from protocol.sampled import Arrays, Sampled, pack_floats, pack_ids
from protocol.subjects import run_id
from protocol.views import view
from replay.chain import InboxEntry, RunLog
from replay.formats.atif import trajectory
from replay.formats.common import Tree
from replay.history import values
from tests.logs import log_of
from tests.runs import AT, Driver
from trainer.datasets.facts import ended_at
from trainer.datasets.source import Read
from trainer.fold import fold

CITY: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
POOL: Final = Pool(
    (
        WorkerSpec(name="population", description="Population of a city.", parameters=CITY),
        WorkerSpec(name="country", description="Country of a city.", parameters=CITY, attempts=1),
        WorkerSpec(
            name="adder",
            description="Sum of two numbers.",
            parameters={"type": "object", "properties": {"a": {}, "b": {}}},
        ),
    )
)
HERMES: Final = PolicySpec(name="local:tiny", dialect="hermes")
ORACLE: Final = PolicySpec(name="rules")

RIGHTLY: Final[dict[str, Json]] = {"kind": "exact", "answer": "2100000"}

END: Final = "\0"

Turn = tuple[Decision | str, Sequence[tuple[Status, Fault, Json]]]
"""A decision, or a text that is none, and what came of its calls."""


def name(number: int) -> str:
    """The id of a run."""
    return run_id(number.to_bytes(8, "big"))


def ask(*calls: tuple[str, dict[str, Json]]) -> Decision:
    """A round of calls."""
    return Decision(calls=tuple(PlannedCall(worker, arguments) for worker, arguments in calls))


def say(text: str) -> Decision:
    """An answer."""
    return Decision(answer=text)


RIGHT: Final[list[Turn]] = [
    (ask(("population", {"city": "Paris"})), [("OK", "none", 2_100_000)]),
    (say("2100000"), []),
]
WRONG: Final[list[Turn]] = [(say("no idea"), [])]
SERIAL: Final[list[Turn]] = [
    (ask(("country", {"city": "Paris"})), [("OK", "none", "France")]),
    (ask(("population", {"city": "Paris"})), [("OK", "none", 2_100_000)]),
    (say("2100000"), []),
]
MENDED: Final[list[Turn]] = [
    (ask(("population", {"town": "Paris"})), []),  # refused before anybody is asked
    (ask(("population", {"city": "Paris"})), [("OK", "none", 2_100_000)]),
    (say("2100000"), []),
]
REFUSED: Final[list[Turn]] = [
    ("<tool_call>\n{broken\n</tool_call>", []),
    (ask(("population", {"city": "Paris"})), [("OK", "none", 2_100_000)]),
    (say("2100000"), []),
]
CRASHED: Final[list[Turn]] = [
    (ask(("country", {"city": "Paris"})), [("EXEC_ERR", "worker", "it fell over")]),
    (ask(("population", {"city": "Paris"})), [("OK", "none", 2_100_000)]),
    (say("2100000"), []),
]
STUCK: Final[list[Turn]] = [
    (ask(("country", {"city": "Paris"})), [("EXEC_ERR", "worker", "it fell over")]),
    (say("2100000"), []),
]


def run_of(
    number: int,
    turns: Sequence[Turn] = RIGHT,
    *,
    task: str = "How many live in Paris?",
    policy: PolicySpec = HERMES,
    version: str = "000001",
    tokens: bool = True,
    at: int = 0,
    rewards: dict[str, float] | None = None,
    labels: dict[str, Json] | None = None,
    pool: Pool = POOL,
    ends: bool = True,
    check: Json = RIGHTLY,
    drawn: Callable[[Sampled], Sampled] = lambda each: each,
) -> RunLog:
    """The log of a run.

    Args:
        number: Makes its id.
        turns: What the policy says, and what comes of it.
        task: What it is asked.
        policy: Who it is.
        version: Of its weights: its replies name it as those of a local model do. Without tokens:
            what its replies name.
        tokens: Whether its tokens are known.
        at: Seconds after the beginning of time.
        rewards: What others give it; 1 for the accuracy of an answer with digits, by default.
        labels: What others say of it.
        pool: The workers.
        ends: Whether it is driven to its end.
        check: How its answer is checked.
        drawn: Changes how its tokens were drawn.
    """
    budget = Budget(rounds=8)
    asked = Task(text=task, check=check)
    start = Start(run=name(number), task=asked, pool=pool, policy=policy, budget=budget)
    driver = Driver(start, at=AT + 1_000 * at)
    before = ""
    for said, outcomes in turns[: None if ends else -1]:
        assert driver.state.asked is not None
        shown = view(driver.state, driver.values)
        reply = Reply(text=said) if isinstance(said, str) else render(policy, said, pool)
        if tokens:
            prompt = _prompt(policy, shown)
            typed = reply.text + END
            goes_on = bool(before) and prompt.startswith(before)
            made = _sampled(
                prompt[len(before) :] if goes_on else prompt,
                typed,
                driver.state.turn - 1 if goes_on else 0,
                version,
            )
            before = prompt + typed
            reply = replace(reply, sampled=drawn(made), version=spelled(policy, version))
        else:
            reply = replace(reply, version=version)
        driver.reply(reply, after_ms=100)
        calls = [each for each, known in driver.state.calls.items() if known.open]
        for call, (status, fault, value) in zip(calls, outcomes, strict=True):
            driver.report(call, status=status, fault=fault, value=value)
    log = log_of(driver)
    given = rewards
    if given is None:
        given = {"accuracy": float(driver.state.answer == "2100000")} if ends else {}
    said_of = [Reward(run=log.run, channel=c, value=v, by="test") for c, v in given.items()]
    told = [Label(run=log.run, key=k, value=v, by="test") for k, v in (labels or {}).items()]
    return told_of(log, [*said_of, *told])


def told_of(log: RunLog, messages: Iterable[Reward | Label]) -> RunLog:
    """The log, with more said of its run."""
    for message in messages:
        seq = len(log.inbox) + 1
        log.inbox.append(InboxEntry(seq, digest(encode(message)), message))
    return log


def _prompt(policy: PolicySpec, shown: Any) -> str:
    messages: list[dict[str, Any]] = request(policy, shown)["messages"]
    lines = [f"<{m['role']}>{m['content']}{END}" for m in messages]
    return "".join(lines) + "<assistant>"


def _sampled(prompt: str, typed: str, after: int, version: str) -> Sampled:
    ids = list(typed.encode())
    logprobs = [-0.125 * (1 + place % 7) for place in range(len(ids))]
    arrays = Arrays(pack_ids(list(prompt.encode())), pack_ids(ids), pack_floats(logprobs))
    return Sampled(
        after=after,
        arrays=arrays,
        temperature=0.75,
        version=version,
        weights=_weights(version),
        tokenizer="bytes",
        template="plain",
    )


def spelled(policy: PolicySpec, version: str) -> str:
    """How replies of a local model name a version, see `actors.models.replies.ended`."""
    return f"{policy.name.rpartition(':')[2]}/{version}@{_weights(version)[:12]}"


def _weights(version: str) -> str:
    return sha256(version.encode()).hexdigest()


class Runs:
    """Runs in memory, as `trainer.datasets.source.Source` has them."""

    def __init__(self, *logs: RunLog) -> None:
        self.logs = {log.run: log for log in logs}
        self.reads = 0

    def add(self, *logs: RunLog) -> "Runs":
        """More of them."""
        self.logs |= {log.run: log for log in logs}
        return self

    async def runs(self) -> list[str]:
        """See `Source`."""
        return sorted(self.logs)

    async def read(self, run: str) -> Read | None:
        """See `Source`."""
        self.reads += 1
        log = self.logs[run]
        return Read(fold(log), ended_at(log), None)

    async def trajectory(self, run: str) -> Any:
        """See `Source`."""
        log = self.logs[run]
        return trajectory(Tree(log, values(log), {}), version="0.1.0", content=True)


def fixed() -> list[RunLog]:
    """A small set of runs that never changes: golden hashes are of it."""
    stories = [RIGHT, WRONG, SERIAL, RIGHT, WRONG, REFUSED, CRASHED, STUCK, RIGHT, MENDED]
    return [
        run_of(n, story, task=f"How many live in Paris ({n // 3})?", at=30 * n)
        for n, story in enumerate(stories)
    ]
