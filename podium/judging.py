"""Who checks answers that a comparison can't: a sandbox for programs, workers of a pool as judges.

What a task's check says comes from a log, so nothing of it is trusted: its code runs behind the
sandbox's walls, and a judge is a worker of this user's own pool, never one that the log describes.
"""

import math
from collections.abc import Sequence
from typing import Final

from actors import workers
from actors.ports import Adapter, Attempt, Outcome
from actors.secrets import Secrets
from actors.work import work_on
from protocol.actions import Json, WorkerSpec
from protocol.errors import NotFound
from protocol.redaction import Redactor

SHOWN: Final = 12
"""Names that an error lists of those that there are."""


_PROGRAMS: Final = ""
"""Where programs are run: no worker of a pool is called so."""


class HostedJudges:
    """Runs programs and asks judges in this process (`trainer.rewards.Judges`).

    Args:
        pool: Workers among which judges are looked for.
        redactor: What is taken for a secret.
        secrets: Where secrets are, besides the environment.
    """

    def __init__(
        self, pool: Sequence[WorkerSpec] = (), redactor: Redactor | None = None, secrets: str = ""
    ) -> None:
        self._pool = {spec.name: spec for spec in pool}
        self._redactor, self._place = redactor or Redactor(), secrets
        self._hosted: dict[str, tuple[Adapter, Secrets]] = {}
        self._asked = 0

    async def run_program(self, code: str) -> Outcome:
        """See `Judges`. In a sandbox that nobody has used, without network and files."""
        return await self._work(workers.draft("python"), {"code": code}, _PROGRAMS)

    async def ask(self, worker: str, question: str) -> Outcome:
        """See `Judges`. The question is the worker's first parameter that is a text."""
        spec = self._pool.get(worker)
        if spec is None:
            names = ", ".join(list(self._pool)[:SHOWN]) or "none"
            raise NotFound(
                f"there is no worker {worker!r} to judge answers; there are: {names}",
                hint="name the file of a pool that has it: podium score RUN --judge --pool FILE",
            )
        return await self._work(spec, {_text_of(spec): question}, worker)

    async def close(self) -> None:
        """Release what was hosted."""
        for adapter, _ in self._hosted.values():
            await adapter.close()
        self._hosted.clear()

    async def _work(self, spec: WorkerSpec, arguments: dict[str, Json], host: str) -> Outcome:
        adapter, secrets = self._host(spec, host)
        self._asked += 1
        attempt = Attempt(
            run="check",
            call=f"1-{self._asked}",
            attempt=1,
            arguments=arguments,
            timeout_s=math.ceil(spec.timeout_ms / 1_000),
        )
        return await work_on(attempt, adapter, secrets)

    def _host(self, spec: WorkerSpec, name: str) -> tuple[Adapter, Secrets]:
        if name not in self._hosted:
            secrets = Secrets.of(spec, self._redactor, self._place)
            self._hosted[name] = workers.host(secrets.options(spec)), secrets
        return self._hosted[name]


def _text_of(spec: WorkerSpec) -> str:
    """The parameter that takes the question."""
    declared: Json = spec.parameters.get("properties", {})
    required = spec.parameters.get("required", [])
    texts = [
        name
        for name, schema in declared.items()
        if isinstance(schema, dict) and schema.get("type") == "string"
    ]
    texts.sort(key=lambda name: name not in required)
    if not texts:
        raise NotFound(
            f"the worker {spec.name!r} takes no text, so it can't be asked to judge",
            hint="give a judge a parameter of type string: docs/rewards.md",
        )
    return str(texts[0])
