"""Live trainings and their deployment: when a version answers, and what keeps it from that."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from podium import live_training
from podium.live_training import Rollouts
from protocol.errors import InvalidData, TimedOut

MODEL = Path("/models/m")


class Host:
    """Says of its servers what it is told to, one look after another; the last for good."""

    def __init__(self, *looks: list[dict[str, Any]]) -> None:
        self.looks = list(looks)

    async def stats(self) -> list[dict[str, Any]]:
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]


class Deployments:
    """A deployment that stands."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def standing(self, config: Any) -> Any:
        return self

    @contextlib.asynccontextmanager
    async def connect(self, config: Any) -> AsyncIterator[Any]:
        yield self.host


def row(version: str, refused: str = "") -> dict[str, Any]:
    return {"kind": "model", "worker": str(MODEL), "version": version, "refused": refused}


def ready(version: str, *looks: list[dict[str, Any]]) -> None:
    deployments: Any = Deployments(Host(*looks))
    config: Any = None
    with Rollouts(deployments, config) as rollouts:
        rollouts.ready(MODEL, version)


def refusal(version: str) -> str:
    return f"version {version} in {MODEL}/versions/{version} is refused: its weights are no numbers"


def test_a_version_is_waited_for_whatever_was_refused_before_it() -> None:
    ready("000003", [row("000001", refusal("000002"))], [row("000003")])
    gone = f"{MODEL}/versions/000002 is no folder of a model: it has no config.json"
    ready("000003", [], [row("000001", gone)], [row("000003", gone)])


def test_a_canary_that_is_refused_is_no_matter() -> None:
    ready("000003", [row("000003", refusal("000004"))])


@pytest.mark.parametrize(
    "said",
    [
        refusal("000003"),
        f"version 000003: {MODEL}/versions/000003/model.safetensors is damaged",
        f"{MODEL}/versions/000003 is no folder of a model: it has no config.json",
    ],
)
def test_a_version_that_is_refused_itself_ends_it(said: str) -> None:
    with pytest.raises(InvalidData, match="version 000003 of /models/m is refused"):
        ready("000003", [row("000002")], [row("000003"), row("000002", said)])


def test_one_that_never_comes_says_what_its_server_said_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_training, "READY_S", 0.05)
    with pytest.raises(TimedOut, match=r"not loaded within.*said: version 000002"):
        ready("000003", [row("000001", refusal("000002"))])
