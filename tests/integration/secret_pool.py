"""Tools, an agent and a policy that say secrets wherever one can be said: the pool of a test.

The policy calls everything once, then answers. What stands in ``PLANTED`` must never be stored.
"""

import os
from hashlib import sha256
from typing import Any, Final

from actors.workers import draft
from protocol.actions import Pool, WorkerSpec
from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, View

VALUE: Final = 'v4lue of "the" secret/1'
"""Of the secret ``DB``, which only the worker's environment holds."""

PLANTED: Final = {
    "openai": "sk-proj-" + "PLANTED0aBcDeFgHiJkLmNoP",
    "github": "ghp_" + "PLANTED1abcdefghijklmnopqrstuvwxyz012",
    "aws": "AKIA" + "PLANTED234567890",
    "password": "planted-password-3",
    "header": "planted-header-4",
    "cookie": "planted-cookie-5",
    "url": "planted-url-6",
    "query": "planted-query-7",
    "bearer": "planted.bearer.token.8",
    "own": "EMP-PLANTED-9",
    "pin": "planted-pin-10",
    "key": "planted-endpoint-key-11",
}
"""Each a secret of another kind."""

REFERENCE: Final = "${secret:DB}"
MODULE: Final = __name__
POLICY: Final = PolicySpec(name=f"python:{MODULE}:Policy")

URL: Final = f"https://ada:{PLANTED['url']}@db.example/x?api_key={PLANTED['query']}&page=2"
HEADERS: Final = {
    "Authorization": f"Token {PLANTED['header']}",
    "Cookie": f"sid={PLANTED['cookie']}",
    "Accept": "text/html",
}


def fetch(url: str, headers: dict[str, str]) -> dict[str, Any]:
    """What a tool says that was given secrets, and says them all."""
    given = headers["X-Db"]
    return {
        "proof": sha256(given.encode()).hexdigest(),
        "echo": f"asked {url} with {given}",
        "headers": HEADERS | headers,
        "pairs": [["Authorization", PLANTED["header"]]],
        "pin": PLANTED["pin"],
        "note": f"{PLANTED['own']} {PLANTED['openai']}",
        PLANTED["github"]: [PLANTED["aws"]],
    }


def fail(connection: str) -> str:
    """An error that shows all that it had."""
    raise ConnectionError(f"{connection!r}: {URL} refused {HEADERS} password={PLANTED['pin']}")


def environment() -> str:
    """What a tool finds by itself."""
    return os.environ["PODIUM_SECRET_DB"]


def large() -> list[str]:
    """A value for a blob."""
    return ["Lake Superior."] * 6_000 + [PLANTED["openai"], VALUE, f"Bearer {PLANTED['bearer']}"]


def pool(endpoint: str) -> Pool:
    """Everything that can be called."""
    tools = [
        draft(f"function:{MODULE}:{name}", attempts=1, secrets=("DB",))
        for name in ("fetch", "fail", "environment", "large")
    ]
    agents = [
        draft("openai", {"model": "m", "base_url": endpoint}, name=name, attempts=1)
        for name in ("writer", "refused")
    ]
    undeclared = draft(f"function:{MODULE}:fail", name="undeclared", attempts=1)
    return Pool((*tools, *agents, undeclared))


class Policy:
    """Calls everything, and says a secret wherever it can."""

    spec = POLICY

    def decide(self, view: View) -> Reply:
        """One round of everything, then an answer."""
        if view.turns:
            return Reply(decision=Decision(answer=f"{view.task.text} {PLANTED['github']}"))
        calls = (
            PlannedCall("fetch", {"url": URL, "headers": HEADERS | {"X-Db": REFERENCE}}),
            PlannedCall("fail", {"connection": f"db://{REFERENCE}@h"}),
            PlannedCall("environment", {}),
            PlannedCall("large", {}),
            PlannedCall("writer", {"subtask": f"use {PLANTED['openai']}"}),
            PlannedCall("refused", {"subtask": "ask"}, after=(4,)),
            PlannedCall("undeclared", {"connection": REFERENCE}),
            PlannedCall("fetch", {"password": PLANTED["password"]}),
        )
        text = f"Authorization: Bearer {PLANTED['bearer']}"
        return Reply(text=text, decision=Decision(calls=calls))


def spec_of(pool: Pool, name: str) -> WorkerSpec:
    """The worker of that name."""
    found = pool.get(name)
    assert found is not None
    return found
