"""What a conductor makes of whatever would otherwise come back at every recovery."""

from collections.abc import Iterable

from actors.conductor import Conductor, ConductorOptions
from actors.jetstream_queue import consumers_of
from actors.memory_queue import MemoryQueue
from actors.policies import NAMES, find
from actors.queues import Outgoing
from protocol.actions import Pool, WorkerSpec
from protocol.budgets import Budget
from protocol.decisions import Decision, View
from tests.world import World, calls


async def test_a_policy_that_raises_pauses_its_run_with_the_reason() -> None:
    def decide(_: View) -> Decision:
        raise ZeroDivisionError("of the policy's own")

    world = World()
    world.policy(decide)
    await world.conductor()
    run = await world.submit(world.start())
    log = await world.until(run, lambda log: log.state().phase == "paused")
    state = log.state()
    assert state.pause_reason == "policy_unavailable"
    assert "ZeroDivisionError: of the policy's own" in state.pause_detail
    assert state.epoch == 1, "it was not tried again and again"
    await world.close()


async def test_a_policy_that_there_is_not_pauses_its_run_with_the_reason_and_the_cure() -> None:
    world = World()
    world.policy(lambda _: Decision(answer="of another host"))
    conductor = await world.conductor()
    conductor.policies = lambda spec: find(spec.name)
    run = await world.submit(world.start())
    log = await world.until(run, lambda log: log.state().phase == "paused")
    assert f"there is no policy 'script'; {NAMES}" in log.state().pause_detail
    await world.close()


class _Noting(MemoryQueue):
    """A queue that remembers what it was sent."""

    def __init__(self, lease_s: float) -> None:
        super().__init__(consumers_of("tool"), lease_s)
        self.sent: list[str] = []

    async def send(self, messages: Iterable[Outgoing]) -> None:
        """See `Queue.send`."""
        known = list(messages)
        self.sent += [subject for subject, *_ in known]
        await super().send(known)


async def test_an_attempt_past_its_deadline_is_not_made_again() -> None:
    world = World()
    world.calls = noting = _Noting(world.lease_s)
    world.policy(lambda shown: calls(("tool", {})) if not shown.turns else Decision(answer="late"))
    world.pool = Pool((WorkerSpec(name="tool"),))
    first = await world.conductor()
    run = await world.submit(world.start(budget=Budget(wall_ms=86_400_000)))
    log = await world.until(run, lambda log: bool(log.state().open))
    deadline = log.state().calls["1-0"].deadline
    await first.stop()
    world.conductors.remove(first)
    sent = len(noting.sent)
    second = Conductor(
        log=world.log,
        tasks=world.tasks,
        calls=noting,
        bus=world.bus,
        policies=lambda spec: world.policies[spec.name],
        clock=lambda: deadline,
        options=ConductorOptions(name="c2", lease_s=world.lease_s, look_s=world.look_s),
    )
    world.conductors.append(second)
    await second.start()
    log = await world.ended(run)
    assert log.state().calls["1-0"].status == "TIMEOUT"
    assert noting.sent[sent:] == [], "nobody would wait for it, and it may have been paid for"
    await world.close()
