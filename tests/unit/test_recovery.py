"""What a conductor makes of whatever would otherwise come back at every recovery."""

from protocol.decisions import Decision, View
from tests.world import World


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
