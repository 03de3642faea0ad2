"""What golden logs are recorded of: real conductors and workers over memory, in virtual time.

Between them the stories have every event and every cause.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from actors.ports import Attempt, Outcome
from protocol.actions import Report, Spend, WorkerSpec
from protocol.budgets import Budget, Extension
from protocol.codec import encode
from protocol.decisions import Decision, Dialect, PlannedCall, PolicySpec, Reply, ToolCall, View
from protocol.events import CallSettled, Edit, PolicyAsked
from protocol.inbox import Label, Reward
from protocol.references import reference
from protocol.secret_forms import Redaction
from replay.chain import RunLog
from replay.forks import failure
from replay.history import entries
from tests.golden.stage import (
    ABSENT,
    CHILD,
    LONG_S,
    Endpoint,
    Working,
    begun,
    client,
    ended,
    paused,
    said,
    tool,
)
from tests.runs import NUMBER
from tests.stories import epoch
from tests.world import World, calls

Story = Callable[[World], Awaitable[list[str]]]
"""Has runs happen, and returns their ids."""


async def rounds(world: World) -> list[str]:
    """Rounds of parallel calls, some that don't fit, some that wait for others or see them."""

    def decide(view: View) -> Decision:
        if not view.turns:
            odd = PlannedCall("tool", {"n": "seven"})
            stranger = PlannedCall("nobody", {})
            return Decision(calls=(tool(3), tool(1), odd, stranger, PlannedCall("agent", {"n": 2})))
        if len(view.turns) == 1:
            return Decision(calls=(tool(4), tool(2, after=(0,)), tool(5, sees=(0, 1))))
        return Decision(answer="nine, one, four; then sixteen, four and twenty-five")

    world.policy(decide)
    await begun(world)
    run = await world.submit(world.start(budget=Budget(parallel=2)))
    await ended(world, run)
    for message in (
        Reward(run=run, channel="correct", value=1.0, by="a checker"),
        Label(run=run, key="seen", value=True, by="ada"),
    ):
        await world.log.post(run, encode(message))
    return [run]


async def retries(world: World) -> list[str]:
    """A lost attempt made again, a time-out, a report that comes too late, a rejected decision."""
    replies = [
        said(tool(1, after=(3,))),
        said(tool(1), PlannedCall("absent", {})),
        said(answer="one, and nobody knows"),
    ]
    slow = world.policies["slow"] = Endpoint("slow", replies)
    work = Working()
    work.lost = {"1-0"}
    world.pool = type(world.pool)((ABSENT,))
    await begun(world, work)
    run = await world.submit(world.start(policy="slow"))

    def waits(log: RunLog) -> bool:
        asked = log.state().asked
        return asked is not None and asked.turn == 3

    assert isinstance(slow, Endpoint)
    await world.until(run, lambda log: log.state().round == 1, LONG_S)
    slow.after_s = 5.0
    await world.until(run, waits, LONG_S)
    late = Report(run=run, call="1-1", attempt=1, status="OK", value="late", by="absent-1")
    await world.log.post(run, encode(late))
    await ended(world, run)
    return [run]


async def steered(world: World) -> list[str]:
    """Paused, resumed, given more, and asked for its answer early."""

    def decide(view: View) -> Decision:
        if view.final:
            return Decision(answer=f"after {len(view.turns)} rounds")
        return Decision(calls=(tool(30),))

    world.policy(decide)
    await begun(world)
    hand = client(world)
    run = await world.submit(world.start())
    await world.until(run, lambda log: log.state().round == 2, LONG_S)
    await hand.signal(run, "pause", reason="lunch")
    await paused(world, run)
    await hand.signal(run, "resume")
    await hand.signal(run, "extend", extension=Extension(rounds=2, calls=5))
    await world.until(run, lambda log: log.state().round == 4, LONG_S)
    await hand.signal(run, "answer", by="bob", reason="that will do")
    await ended(world, run)
    return [run]


async def cancelled(world: World) -> list[str]:
    """Cancelled at work."""
    world.policy(lambda _: Decision(calls=(tool(40), tool(41))))
    await begun(world)
    run = await world.submit(world.start())
    await world.until(run, lambda log: log.state().phase == "working", LONG_S)
    await client(world).signal(run, "cancel", reason="not that one")
    await ended(world, run)
    return [run]


async def limits(world: World) -> list[str]:
    """At its limits: paused and extended; answered by the composer; ended without an answer."""
    world.policy(
        lambda view: Decision(answer="two") if len(view.turns) > 1 else Decision(calls=(tool(2),))
    )
    world.policy(lambda view: Decision(calls=(tool(3),)), "stubborn")
    await begun(world)
    extended = await world.submit(world.start(budget=Budget(rounds=1, on_limit="pause")))
    await paused(world, extended)
    await client(world).signal(extended, "extend", extension=Extension(rounds=2))
    await ended(world, extended)
    composed = await world.submit(world.start(budget=Budget(rounds=1), policy="stubborn"))
    await ended(world, composed)
    nothing = await world.submit(world.start(budget=Budget(rounds=0), policy="stubborn"))
    await ended(world, nothing)
    return [extended, composed, nothing]


async def unavailable(world: World) -> list[str]:
    """A policy that fails, is tried again, can't be asked, and is there after all."""
    no = Reply(status="EXEC_ERR", error="503: overloaded", spend=Spend(tokens=1))
    refused = Reply(status="EXEC_ERR", error="401: no such key", retry=False)
    replies = [no, no, refused, said(answer="at last")]
    world.policies["endpoint"] = Endpoint("endpoint", replies)
    await begun(world)
    run = await world.submit(world.start(policy="endpoint"))
    await paused(world, run)
    await client(world).signal(run, "resume")
    await ended(world, run)
    return [run]


async def children(world: World) -> list[str]:
    """A run below a run, and one of them that fails."""

    def decide(view: View) -> Decision:
        if view.task.text == "a test":
            if view.turns:
                return Decision(answer="as below")
            return calls(("below", {"task": "square"}), ("below", {"task": "fail"}))
        if view.task.text == "fail":
            return Decision(calls=(tool(13),))
        return Decision(answer="forty-nine") if view.turns else Decision(calls=(tool(7),))

    world.policy(decide)
    world.pool = type(world.pool)((CHILD,))
    await begun(world)
    run = await world.submit(world.start(budget=Budget(rounds=2, depth=2, calls=12)))
    await ended(world, run)
    return [run, *(each for each in await world.log.runs() if each != run)]


async def forked(world: World) -> list[str]:
    """Forks: a call made again, another policy, an observation replaced, a fork of a fork."""

    def decide(view: View) -> Decision:
        if not view.turns:
            return Decision(calls=(tool(2), tool(13)))
        seen = [o.value for o in view.turns[-1].observations if o.status == "OK"]
        return Decision(answer=f"{len(seen)} of 2")

    world.policy(decide)
    world.policy(lambda view: Decision(answer=f"lazily, after {len(view.turns)}"), "lazy")
    work = await begun(world)
    log = await ended(world, await world.submit(world.start()))
    found = failure(log)
    assert found is not None
    hand = client(world)
    work.broken = False
    (rerun,) = await hand.fork(log.run, found.at, reopened=found.reopened, reason="mended")
    again = await ended(world, rerun)
    settled = [e.number for e in entries(log) if isinstance(e.event, CallSettled)][-1]
    edits = (Edit("calls.1-1.value", 169), Edit("calls.1-1.status", "OK"))
    (edited,) = await hand.fork(log.run, settled, edits=edits)
    await ended(world, edited)
    asked = [e.number for e in entries(again) if isinstance(e.event, PolicyAsked)][-1]
    (lazy,) = await hand.fork(rerun, asked, policy=PolicySpec(name="lazy"))
    await ended(world, lazy)
    return [log.run, rerun, edited, lazy]


async def blobs(world: World) -> list[str]:
    """A value too large for a message, shown to the policy."""
    world.policy(
        lambda view: Decision(answer="long") if view.turns else Decision(calls=(tool(70),))
    )
    spec = WorkerSpec(name="tool", parameters=NUMBER, timeout_ms=60_000)
    await world.worker(spec, Working().work)
    await world.conductor()
    run = await world.submit(world.start())
    await ended(world, run)
    return [run]


async def native(world: World) -> list[str]:
    """Native tool calls: arguments that are no JSON, a note beside calls, an empty reply."""
    calls_ = (ToolCall("c1", "tool", '{"n": 3}'), ToolCall("c2", "tool", "{n: 3"))
    replies = [
        Reply(text="Both at once.", tool_calls=calls_, spend=Spend(tokens=40), version="gpt-story"),
        Reply(text="", spend=Spend(tokens=2)),
        Reply(tool_calls=(ToolCall("c3", "agent", '{"n": 4}'),), spend=Spend(tokens=9, cost=1)),
        Reply(text="nine and sixteen", spend=Spend(tokens=12), latency_ms=500),
    ]
    world.policies["native"] = Endpoint("native", replies, "openai")
    await begun(world)
    run = await world.submit(world.start(policy="native"))
    await ended(world, run)
    return [run]


async def texts(world: World) -> list[str]:
    """The Hermes template, workers by number: a malformed block, parallel calls, an answer."""
    call = '<tool_call>\n{"name": "worker_%d", "arguments": {"n": %d}}\n</tool_call>'
    replies = [
        Reply(text="<tool_call>tool(3)</tool_call>", spend=Spend(tokens=9), version="qwen-story"),
        Reply(text=f"<think>Both.</think>\n\n{call % (1, 3)}\n{call % (2, 4)}\n{call % (9, 1)}"),
        Reply(text="<think>9, 16.</think>\n\nnine and sixteen", latency_ms=500),
    ]
    endpoint = world.policies["texts"] = Endpoint("texts", replies, "hermes")
    endpoint.spec = msgspec.structs.replace(endpoint.spec, naming="numbers", system="You lead.")
    await begun(world)
    run = await world.submit(world.start(policy="texts"))
    await ended(world, run)
    return [run]


async def plans(world: World) -> list[str]:
    """The Conductor's lists: a plan whose last step fails, another that answers; an acceptance."""
    subtasks = "subtasks = ['{\"n\": 3}', '{\"n\": %d}']"
    plan = f"model_id = [1, 2]\n{subtasks}\naccess_list = [[], ['all']]"
    accept = "model_id = []\nsubtasks = []\naccess_list = []"
    await begun(world)
    runs: list[str] = []
    for name, then in {"plans": plan % 4, "accepting": accept}.items():
        replies = [Reply(text=text, spend=Spend(tokens=9)) for text in (plan % 13, then)]
        endpoint = world.policies[name] = Endpoint(name, replies, "lists")
        endpoint.spec = msgspec.structs.replace(endpoint.spec, naming="numbers")
        runs.append(await world.submit(world.start(policy=name)))
        await ended(world, runs[-1])
    return runs


async def references(world: World) -> list[str]:
    """Outputs put into arguments and into answers: in the compact dialect, and in decisions."""
    return await _pointing(world, "compact")


async def slots(world: World) -> list[str]:
    """The same, of a policy that is shown its workers' slots at the end of their lines."""
    return await _pointing(world, "slots")


async def _pointing(world: World, dialect: Dialect) -> list[str]:
    replies = [
        Reply(text="@1 n=3\n@3 #1 metres\n@2 n=#9", spend=Spend(tokens=9), version="small-story"),
        Reply(text="@1 n=$1\n@3 #1 metres\n@1 n=13\n@2 n=#3", spend=Spend(tokens=9)),
        Reply(text="@2 n=#3\n@3 #2, #1", spend=Spend(tokens=9), latency_ms=500),
        Reply(text="= #2 and #6", spend=Spend(tokens=5)),
    ]
    world.policies["small"] = Endpoint("small", replies, dialect)

    def decide(view: View) -> Decision:
        one = reference("1-0", "output")
        if not view.turns:
            return Decision(calls=(tool(2), PlannedCall("echo", {"text": f"It is {one}."})))
        return Decision(calls=(PlannedCall("echo", {"text": one}),), answers=f"{one}!")

    world.policy(decide)
    await begun(world)
    text = {"type": "object", "properties": {"text": {"type": "string"}}}

    async def echo(attempt: Attempt) -> Outcome:
        return Outcome(value={"value": attempt.arguments["text"]})

    await world.worker(WorkerSpec(name="echo", parameters=text), echo)
    start = world.start(policy="small")
    task = msgspec.structs.replace(start.task, text="Square 3.", inputs={"entities": [3]})
    runs = [msgspec.structs.replace(start, task=task), world.start()]
    return [(await ended(world, await world.submit(each))).run for each in runs]


async def hidden(world: World) -> list[str]:
    """A run that records what it hides, and forks of those who hide less and more."""

    def decide(view: View) -> Decision:
        if view.turns:
            return Decision(answer="badge B-12 of Room-3")
        return Decision(calls=(tool(2), PlannedCall("tool", {"n": 3, "pin": "1234"})))

    world.policy(decide)
    await begun(world)
    mine = client(world, Redaction(names=("pin",), patterns=(r"B-\d+",)))
    spec = world.policies["script"].spec
    run = await mine.submit("Whose is B-12?", world.pool, spec)
    log = await ended(world, run)
    asked = [e.number for e in entries(log) if isinstance(e.event, PolicyAsked)][-1]
    others = client(world, Redaction(patterns=(r"Room-\d+",)))
    (less,) = await client(world).fork(run, asked, reason="less")
    (more,) = await others.fork(run, asked, reason="more")
    await ended(world, less)
    await ended(world, more)
    return [run, less, more]


async def taken_over(world: World) -> list[str]:
    """Taken over by other conductors: one goes on; a run that none gets further is paused."""
    world.policy(
        lambda view: Decision(answer="in the end") if view.turns else Decision(calls=(tool(45),))
    )
    await begun(world)
    run = await world.submit(world.start())
    for number in range(2, 9):
        await world.until(run, lambda log: log.state().phase != "new", LONG_S)
        await world.conductors.pop().stop()
        await world.conductor(f"c{number}")
        taken = await world.until(run, epoch(number), LONG_S)
        if taken.state().phase == "paused":
            break
    await paused(world, run)
    await client(world).signal(run, "resume", reason="the host was to blame")
    await ended(world, run)
    return [run]


STORIES: Final[dict[str, Story]] = {
    each.__name__: each
    for each in (
        *(rounds, retries, steered, cancelled, limits, unavailable),
        *(children, forked, blobs, native, texts, plans, references, slots, hidden),
        taken_over,
    )
}
