"""The gym on real actors: broker, Ray, a conductor that teaches, and the hosted catalogue."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from podium.host import Host
from protocol.decisions import PolicySpec
from protocol.references import as_text
from tests.integration.chaos import Deployment
from trainer.gym import hosted
from trainer.gym.episodes import draw

POLICY = PolicySpec(name="python:trainer.gym.hosted:LiveOracle")

LIMIT_S = 120.0
"""Seconds for a few runs on a busy machine; failures that are time-outs take two each."""


@pytest.mark.slow
async def test_episodes_are_answered_by_a_deployment_and_billed(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "podium", hosted.catalogue())
    deployment.pool = msgspec.structs.replace(deployment.pool, policy=POLICY.name)
    episodes = [hosted.at_home(draw(seed, shipped=False)) for seed in range(12)]
    try:
        with deployment.marked():
            async with Host.open(deployment.config, deployment.pool) as there:
                runs = [
                    await there.client.submit(each.task, each.pool, POLICY, each.budget)
                    for each in episodes
                ]
                async with asyncio.timeout(LIMIT_S):
                    results = [await there.client.result(run) for run in runs]
        assert [each.answer for each in results] == [as_text(each.answer) for each in episodes]
        assert all(each.spent.cost >= 1_500 for each in results)
    finally:
        await deployment.clear()
