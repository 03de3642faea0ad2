"""A standing deployment as rollouts for training: who hosts the model, and whether it has followed.

A trainer has no event loop, and computes for long: what is asked of the deployment is asked in a
thread beside it.
"""

import contextlib
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from protocol.errors import InvalidData, TimedOut, Unreachable, Usage
from trainer.rollouts.beside import Beside
from trainer.rollouts.live import LiveSource
from trainer.training.spec import Live

if TYPE_CHECKING:
    from podium.cli.world import Deployments, Hosted, Standing
    from podium.client import Client
    from podium.config import Config
    from protocol.decisions import PolicySpec

READY_S: Final = 120.0
"""Seconds that a model's server may take to load a version."""


class Rollouts:
    """The runs of a standing deployment, for a training.

    Args:
        deployments: How one comes by it.
        config: Which one is meant.

    Raises:
        Usage: None stands.
    """

    def __init__(self, deployments: "Deployments", config: "Config") -> None:
        self._deployments, self._config = deployments, config
        self.standing = self._standing()
        self._host: Beside[Hosted] = Beside(lambda: deployments.connect(config))
        self._source: LiveSource | None = None

    def __enter__(self) -> Self:
        self._host.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._source is not None:
            self._source.stop()
        self._host.stop()

    def source(self, job: str, live: Live) -> LiveSource:
        """What has groups played, started."""
        self._source = LiveSource(
            self._client, job, in_flight=live.in_flight, timeout_s=live.timeout_s
        )
        self._source.start()
        return self._source

    @contextlib.asynccontextmanager
    async def _client(self) -> "AsyncIterator[Client]":
        async with self._deployments.connect(self._config) as host:
            yield host.client

    def policy(self, model: Path) -> "PolicySpec":
        """The deployment's own policy, which has to be that model.

        Raises:
            Usage: It is another one.
        """
        spec = self.standing.spec
        place = spec.options.get("folder") if spec is not None else None
        if spec is None or place != str(model):
            hosted = f"local:{place}" if place else self.standing.policy or "none"
            raise Usage(
                f"the deployment does not host the model in {model}: its policy is {hosted}",
                hint=f'name it in the pool file, [policy] name = "local:{model}" with its dialect; '
                "then: podium down, and podium up --pool FILE",
            )
        return spec

    def ready(self, model: Path, version: str) -> None:
        """Return when a version of a model answers whoever asks.

        Raises:
            InvalidData: Its server refuses it; the message says why.
            TimedOut: It was not loaded in time.
        """
        until, refused = time.monotonic() + READY_S, ""
        while time.monotonic() < until:
            self.alive()
            servers = [row for row in self._stats() if row.get("worker") == str(model)]
            if servers and all(row.get("version") == version for row in servers):
                return
            for row in servers:
                refused = row.get("refused") or refused
                if row.get("version") != version and _names(refused, version):
                    raise InvalidData(
                        f"version {version} of {model} is refused: {refused}",
                        hint=f"look at it: podium model show {model} {version}",
                    )
        said = f"; its server said: {refused}" if refused else ""
        raise TimedOut(
            f"version {version} of {model} was not loaded within {READY_S:g} s{said}",
            hint="see what its server does: podium status",
        )

    def _stats(self) -> list[dict[str, Any]]:
        rows = self._host.do(lambda host: host.stats())
        return [row for row in rows if row.get("kind") == "model"]

    def alive(self) -> None:
        """Raise `Unreachable` where the deployment has ended."""
        if self._deployments.standing(self._config) is None:
            raise Unreachable(
                "the deployment has ended, and nobody plays; nothing is lost",
                hint="start it as before, and give the command again: it goes on",
            )

    def _standing(self) -> "Standing":
        there = self._deployments.standing(self._config)
        if there is None:
            raise Usage(
                "rollouts are played by a standing deployment, and none lives here",
                hint="start one: podium up",
            )
        return there


def _names(refused: str, version: str) -> bool:
    """Whether it is that version which is refused.

    A server says so of those before it, too, until it has looked again; and of a canary.
    """
    return re.search(rf"\b(version |versions/){version}\b", refused) is not None
