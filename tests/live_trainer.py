"""A trainer that asks a deployment for rollouts and prints each group it is given: to be killed."""

import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from actors.jetstream_queue import JetStreamQueue
from podium.client import Client
from protocol import subjects
from replay.broker import Broker
from replay.jetstream_log import JetStreamLog
from tests.rollouts import ask
from trainer.rollouts import LiveSource

JOB: Final = "killed"
ASKS: Final = (ask("double 1 2", "quick", members=3), ask("double 99", "slow", members=2))

POLL_S: Final = 60.0


class Said(msgspec.Struct):
    """One line: a group."""

    key: str
    runs: list[str]
    answers: list[str]


def main(url: str, user: str, password: str) -> None:
    """Ask, and print."""

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[Client]:
        broker = await Broker.connect(url, user=user, password=password, name="trainer")
        try:
            tasks = JetStreamQueue(broker, subjects.TASKS, lease_s=10.0)
            yield Client(JetStreamLog(broker), tasks, by="trainer", look_s=0.5)
        finally:
            await broker.close()

    source = LiveSource(connect, JOB)
    source.start()
    source.ask(ASKS)
    while not source.done:
        for group in source.poll(POLL_S):
            runs = [each.run for each in group.rollouts]
            answers = [each.log.state().answer for each in group.rollouts]
            line = msgspec.json.encode(Said(group.key, runs, answers)).decode()
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
    source.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
