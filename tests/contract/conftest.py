"""Servers for the suites that every implementation must pass: started once, shared by all tests."""

import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.broker import One, Three, r1, r3
from tests.places import BrokerPlace, LayeredPlace, MemoryPlace, Place, SimPlace, with_streams


@pytest.fixture(scope="session")
def one_server() -> Iterator[One]:
    """One server with all streams."""
    with r1() as server:
        with_streams(server)
        yield server


@pytest.fixture(scope="session")
def three_servers() -> Iterator[Three]:
    """Three servers, and three replicas of all streams."""
    with r3() as server:
        with_streams(server)
        yield server


@pytest.fixture(params=["memory", "r1", "r3", "sim"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """Each place in turn."""
    async with contextlib.AsyncExitStack() as stack:
        yield opened(request, stack)


def opened(request: pytest.FixtureRequest, stack: contextlib.AsyncExitStack) -> Place:
    """The place that a test's parameter names."""
    if request.param == "memory":
        return MemoryPlace()
    if request.param == "layered":
        return LayeredPlace()
    if request.param == "sim":
        return SimPlace(stack)
    name = {"r1": "one_server", "r3": "three_servers"}[request.param]
    return BrokerPlace(request.getfixturevalue(name), stack)
