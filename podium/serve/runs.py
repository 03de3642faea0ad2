"""A request's run: begun, watched, and cancelled when nobody waits for it any more.

Whoever leaves without an answer, by hanging up, by a time-out or because the server stops, has its
run cancelled, for nobody would read what it finds. A request with an ``Idempotency-Key`` is the
exception: it has said that it may come back, and the same key takes the same run up again.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, Final, TypeVar

import msgspec

from podium.client import Client
from podium.resting import paused
from podium.serve.chat import Asked, lowered
from podium.serve.completions import Answer, answer_of, told_apart
from podium.serve.models import Model
from podium.serve.problems import Problem, of_error
from podium.serve.waits import MAX_RUNS, Waits
from protocol.actions import Usage
from protocol.commands import Start
from protocol.errors import Busy, Conflict, PodiumError
from protocol.limits import FINAL_GRACE_MS
from protocol.state import RunState
from protocol.subjects import child_id
from replay.chain import RunLog

logger = logging.getLogger("podium.serve")

_T = TypeVar("_T")

QUEUE_S: Final = 60.0
"""Seconds that a run may take beyond its own wall-clock budget, to be begun and to be ended: longer
than that, no conductor is there."""

MAX_KEY_CHARS: Final = 255
"""Characters of an ``Idempotency-Key``, as others have it."""

KEEP_ALIVE_S: Final = 10.0
"""Seconds after which a stream says that the run is at work: proxies give up on a silent one after
30 or 60."""


class Held(msgspec.Struct):
    """The run of one request."""

    start: Start
    keyed: bool
    """Whether it may be taken up again, and so is never cancelled for want of a client."""
    timeout_s: float
    over: bool = False
    """Whether it was seen to have ended, or to rest until somebody says something to it."""

    @property
    def run(self) -> str:
        """Its id."""
        return self.start.run


class Runs:
    """All that a server does with runs.

    Args:
        client: A deployment's.
        models: By name.
        max_runs: How many are waited for at a time.
        timeout_s: Seconds that a request may take; 0 for as long as its run's budget allows.
        keep_alive_s: Seconds after which a stream says that the run is at work.
    """

    def __init__(
        self,
        client: Client,
        models: Mapping[str, Model],
        *,
        max_runs: int = MAX_RUNS,
        timeout_s: float = 0.0,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        self.client, self.models = client, models
        self.waits = Waits(max_runs)
        self._timeout_s, self._keep_alive_s = timeout_s, keep_alive_s
        self._tasks: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Wait until every run that nobody waits for has been told."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    # ------------------------------------------------------------------ one request

    @contextlib.asynccontextmanager
    async def held(
        self, asked: Asked, *, key: str = "", owner: str = "", traceparent: str = ""
    ) -> AsyncIterator[Held]:
        """A request's run, begun or taken up; cancelled if the block is left by an exception.

        Args:
            asked: What the request asks for.
            key: Its ``Idempotency-Key``, if it has one.
            owner: Whose key that is: two owners' same keys are two.
            traceparent: The span that the run is part of.

        Raises:
            Problem: The run can't be begun.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self.waits.place())
            except Busy as error:
                text = f"{error.message}; {error.hint}"
                raise Problem(429, "rate_limit_exceeded", text, again=True) from None
            held = self._held(asked, key, owner, traceparent)
            try:
                await self._queue(held, asked)
                yield held
            except BaseException as error:
                if not held.keyed and not held.over:
                    self._spawn(self._cancel(held.run, _why(error)), f"cancel-{held.run}")
                raise

    async def watch(self, held: Held) -> AsyncGenerator[RunLog | None, None]:
        """The run's log after each change, until it has ended or paused; None for a sign of life.

        Raises:
            Problem: It takes too long, the server stops, or the log can't be read.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + held.timeout_s
        try:
            async with (
                aclosing(self.client.follow(held.run)) as logs,
                aclosing(self.waits.each(logs, self._keep_alive_s, deadline)) as steps,
            ):
                async for log in steps:
                    if log is None and loop.time() >= deadline:
                        raise _late(held)
                    if log is not None:
                        held.over = log.state().phase == "ended" or paused(log)
                    yield log
                    if held.over:
                        return
            if self.waits.stopped:
                raise _stopped(held)
        except PodiumError as error:
            raise of_error(error, held.run) from None

    async def answer(self, asked: Asked, held: Held, log: RunLog | None) -> Answer:
        """What the run gave, by its log as `watch` last had it.

        Raises:
            Problem: No answer, or the run of another request.
        """
        if log is None:
            raise Problem(500, "internal", f"run {held.run} has no log", run=held.run)
        if held.keyed:
            check_same(held.start, log.state())
        try:
            usage = await self.usage(log)
        except PodiumError as error:
            raise of_error(error, held.run) from None
        return answer_of(log, asked.model, asked.stops, usage)

    async def apart(self, work: Coroutine[Any, Any, _T]) -> _T:
        """The result of some work, which is cancelled once, and then ends in its own time.

        Others' cancellation (anyio's) would go on while the work takes leave of its log.
        """
        task = self._spawn(work, "apart")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            raise

    async def usage(self, log: RunLog) -> Usage:
        """The tokens of a run and of its child runs, as far as they are told apart."""
        total = told_apart(log)
        for call, known in log.state().calls.items():
            spec = log.state().workers.get(known.call.worker)
            if spec is None or spec.kind != "conductor":
                continue
            for attempt in range(1, known.attempt + 1):
                child = await self.client.log(child_id(log.run, call, attempt))
                more = await self.usage(child)
                total = Usage(total.input + more.input, total.output + more.output)
        return total

    # ------------------------------------------------------------------ how

    def _held(self, asked: Asked, key: str, owner: str, traceparent: str) -> Held:
        """The run that a request asks for, checked."""
        model = self.models.get(asked.model)
        if model is None:
            raise unknown(asked.model, self.models)
        if len(key) > MAX_KEY_CHARS:
            text = f"an Idempotency-Key has at most {MAX_KEY_CHARS} characters"
            raise Problem(400, "invalid_value", text)
        budget = lowered(model.budget, asked.budget)
        try:
            start = self.client.start(
                asked.task,
                model.pool,
                model.policy,
                budget,
                run=self.client.run_of(f"{owner}\n{key}") if key else None,
                traceparent=traceparent,
            )
        except PodiumError as error:
            raise of_error(error) from None
        timeout_s = self._timeout_s or (budget.wall_ms + FINAL_GRACE_MS) / 1_000 + QUEUE_S
        return Held(start, bool(key), timeout_s)

    async def _queue(self, held: Held, asked: Asked) -> None:
        """Begin the run, unless its key has begun it before."""
        try:
            if held.keyed:
                log = await self.client.log(held.run)
                if log.commits:
                    check_same(held.start, log.state())
                    return
            await self.client.queue(held.start)
            for name, value in asked.labels.items():
                await self.client.label(held.run, name, value)
        except PodiumError as error:
            raise of_error(error, held.run) from None

    async def _cancel(self, run: str, reason: str) -> None:
        try:
            await self.client.signal(run, "cancel", reason=reason)
        except Conflict:
            pass  # it has ended by itself
        except PodiumError as error:
            logger.warning("run %s goes on although nobody waits for it: %s", run, error)

    def _spawn(self, work: Coroutine[Any, Any, _T], name: str) -> asyncio.Task[_T]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def unknown(model: str, models: Mapping[str, Model]) -> Problem:
    """There is no such model."""
    text = f"there is no model {model!r} here; there are: {', '.join(models)}"
    return Problem(404, "model_not_found", text, param="model")


def check_same(start: Start, state: RunState) -> None:
    """Raise `Problem` if a run was begun by another request than the one that has its key."""
    if state.phase == "new" or state.archived:
        return
    if (start.task, start.policy, start.pool) != (state.task, state.policy, state.pool):
        text = f"this Idempotency-Key belongs to run {start.run}, which was asked something else"
        raise Problem(422, "idempotency_key_reused", text, run=start.run)


_REASONS: Final = {"timeout": "it took too long", "server_stopping": "its server stopped"}


def _why(error: BaseException) -> str:
    if isinstance(error, Problem):
        return _REASONS.get(error.code, "its server lost touch with it")
    return "its client hung up"


def _late(held: Held) -> Problem:
    end = "goes on: send the same request again" if held.keyed else "is cancelled"
    text = f"run {held.run} gave no answer within {held.timeout_s:g} s, and {end}"
    return Problem(504, "timeout", text, run=held.run)


def _stopped(held: Held) -> Problem:
    end = "goes on: send the same request again" if held.keyed else "is cancelled"
    text = f"the server stops; run {held.run} {end}"
    return Problem(503, "server_stopping", text, run=held.run, again=True)
