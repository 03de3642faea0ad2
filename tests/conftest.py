"""What all tests share: a clean environment and one Hypothesis profile.

A developer's own keys, servers and configuration must not change what the tests do, or be spent by
them; and a test that passes on an idle machine must pass on a busy one.
"""

import os
from typing import Final

import pytest
from hypothesis import settings

FOREIGN_VARIABLES = ("PODIUM_", "OPENAI_", "NATS_")
"""Prefixes of environment variables that are the developer's, not the tests'."""

for _name in [name for name in os.environ if name.startswith(FOREIGN_VARIABLES)]:
    del os.environ[_name]

# Ray would report its use to its makers over the network.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

# No deadline: an example's wall-clock time says more of the machine's load than of the code.
settings.register_profile("podium", deadline=None, print_blob=True)
settings.load_profile("podium")

LONG: Final = {"integration", "model", "sim"}
"""Folders of tests that take long."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where processes share the tests, begin with the long ones: short ones fill the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.path.parent.name not in LONG)
