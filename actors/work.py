"""One attempt, worked on: references filled, the adapter run within its time, the outcome made fit.

What a worker does for a call is here, without queue and log, so that a call can be reproduced just
as it was made.
"""

import asyncio
from typing import Final

import msgspec

from actors.ports import Adapter, Attempt, Outcome
from actors.secrets import Secrets
from actors.workers.agent.exchanges import kept
from actors.workers.outcomes import EVERY_MISFIT_BYTES, failure, leaving
from protocol.actions import WorkerSpec
from protocol.codec import deeper_than
from protocol.limits import MAX_NESTING, MAX_VALUE_BYTES
from protocol.redaction import Redactor
from protocol.schemas import misfit
from protocol.views import short

THREAD_BYTES: Final = 1_048_576
"""Bytes of a value above which secrets are looked for beside the event loop: a worker that gives no
sign of life loses its calls to another, and 64 MiB may take seconds."""


async def work_on(attempt: Attempt, adapter: Adapter, secrets: Secrets) -> Outcome:
    """What the adapter makes of an attempt. Only cancellation is an exception."""
    spec, timeout_s = adapter.spec, attempt.timeout_s
    leaving.set(secrets.redactor)
    filled = secrets.attempt(attempt, spec)
    if isinstance(filled, Outcome):
        return filled
    try:
        async with asyncio.timeout(timeout_s):
            return await adapter.run(filled)
    except TimeoutError:
        text = f"{spec.name} took longer than {timeout_s:g} s."
        return Outcome(status="TIMEOUT", fault="worker", value=text, spend=spec.reserve)
    except Exception as error:
        return failure("EXEC_ERR", "worker", f"{type(error).__name__}: {error}")


async def presentable(
    outcome: Outcome, spec: WorkerSpec, redactor: Redactor
) -> tuple[Outcome, bytes]:
    """The outcome as it may leave the worker, and its value's bytes: JSON, within limits."""
    try:
        data = msgspec.json.encode(outcome.value)
    except (TypeError, ValueError, RecursionError) as error:
        return _failed(outcome, redactor, f"{spec.name} returned what is no JSON: {error}")
    if deeper_than(MAX_NESTING, data):
        text = f"{spec.name} returned a value nested deeper than {MAX_NESTING} levels"
        return _failed(outcome, redactor, text)
    if len(data) > MAX_VALUE_BYTES:
        text = f"{spec.name} returned {len(data)} bytes of {MAX_VALUE_BYTES} at most"
        return _failed(outcome, redactor, text)
    if spec.returns and outcome.status == "OK":
        every = len(data) <= EVERY_MISFIT_BYTES
        problem = misfit(spec.returns, outcome.value, "the result", every=every)
        if problem:
            text = f"{spec.name} returned what it does not declare: {problem}. It returned "
            return _failed(outcome, redactor, text + short(outcome.value))
    if redactor.suspects(data):
        if len(data) > THREAD_BYTES:
            value = await asyncio.to_thread(redactor.value, outcome.value)
        else:
            value = redactor.value(outcome.value)
        outcome = msgspec.structs.replace(outcome, value=value)
        data = msgspec.json.encode(value)
    return outcome, data


def record_of(outcome: Outcome, redactor: Redactor) -> bytes:
    """The record that is kept beside the report, encoded: no secrets, and hashes of the requests.

    Empty if there is none.
    """
    if outcome.record is None:
        return b""
    record = outcome.record
    if redactor.suspects(msgspec.json.encode(record)):
        record = redactor.value(record)
    return msgspec.json.encode(kept(record))


def _failed(outcome: Outcome, redactor: Redactor, text: str) -> tuple[Outcome, bytes]:
    value = redactor.text(text)
    failed = Outcome(status="EXEC_ERR", fault="worker", value=value, spend=outcome.spend)
    return failed, msgspec.json.encode(value)
