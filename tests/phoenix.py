"""Arize Phoenix, a real OpenTelemetry backend, for tests."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tests.borrowed import Borrowed, free_port

WITHIN_S: Final = 60.0
"""Seconds for what was sent to be found by its API."""


class Phoenix(Borrowed):
    """A server of its own, on loopback, with an empty database in a folder."""

    name = "phoenix"
    package = "arize-phoenix>=20.26"
    program = "phoenix"
    variable = "PODIUM_TEST_PHOENIX"
    start_s = 240.0  # it compiles itself, and makes its database

    def arguments(self) -> Sequence[str]:
        return ["serve"]

    def environment(self) -> Mapping[str, str]:
        return {
            "PHOENIX_WORKING_DIR": str(self._folder),
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": self.port,
            "PHOENIX_GRPC_PORT": str(free_port()),
            "PHOENIX_TELEMETRY_ENABLED": "false",
        }

    def ready(self) -> bool:
        return self._get("/healthz") is not None

    def spans(self, of_trace: str) -> list[dict[str, Any]]:
        """The spans of one trace, as its API gives them."""
        found = json.loads(self._get("/v1/projects/default/spans?limit=1000") or '{"data": []}')
        return [each for each in found["data"] if each["context"]["trace_id"] == of_trace]

    def wait(self, of_trace: str, count: int) -> list[dict[str, Any]]:
        """The spans of one trace, as soon as there are so many."""
        self._until(
            lambda: len(self.spans(of_trace)) >= count, WITHIN_S, f"{count} spans of {of_trace}"
        )
        return self.spans(of_trace)
