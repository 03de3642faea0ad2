"""One call of a run made again in this process, with what its log recorded; nothing is written.

The arguments, what the worker saw of other calls, the secrets, the time-out and the redaction are
those of the worker, by the same code. An agent is given its model's recorded replies, unless the
model is to be asked anew.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from actors import workers
from actors.attempts import attempt_of, call_message
from actors.ports import Adapter, Attempt, Outcome
from actors.secrets import Secrets
from actors.work import presentable, work_on
from actors.workers.a2a import A2AAdapter
from actors.workers.agent import OpenAIAdapter
from actors.workers.agent.exchanges import Replay
from actors.workers.agent.toolbox import ToolTable, within
from actors.workers.function import FunctionAdapter, Here, find, is_tool
from protocol.actions import BlobRef, Json, Report, WorkerSpec
from protocol.codec import decode_call, decode_value
from protocol.errors import Conflict, Denied, NotFound, Usage
from protocol.exchanges import Said, Used, exchanges
from protocol.redaction import Redactor
from protocol.subjects import child_id
from replay.chain import RunLog
from replay.history import reports
from replay.reproduce import Result, Tried

Fetch = Callable[[BlobRef], Awaitable[bytes]]
"""The bytes of a blob."""

HERE_S: Final = 86_400.0
"""Seconds of an attempt under a debugger: nobody is hurried there."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that is ready to be made again."""

    tried: Tried
    spec: WorkerSpec
    attempt: Attempt
    recorded: Result | None
    """What the worker said; None if it never did."""
    record: Json
    """What an agent's model said, see `exchanges`; None if nothing is recorded."""


class Reproduced(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    made: Result
    prompts: tuple[str, ...] = ()
    """Parts of an agent's requests that are not those of the record."""


async def prepare(log: RunLog, tried: Tried, fetch: Fetch) -> Prepared:
    """Fetch what the attempt needs.

    Raises:
        Usage: It is a call of a conductor, or one whose worker was never started.
        NotFound: A value that it needs is not there any more.
    """
    spec = tried.spec
    if spec is None or not tried.attempt:
        raise Usage(
            f"the worker of call {tried.place} was never started",
            hint=f"see why: podium runs show {log.run} --content",
        )
    if spec.kind == "person":
        raise Usage(
            f"call {tried.place} was answered by a person, and can't be made again",
            hint=f"give another: podium fork {log.run} --at end "
            f"--set calls.{tried.call.id}.value=...",
        )
    if spec.kind == "conductor":
        child = child_id(tried.state.run, tried.call.id, tried.attempt)
        raise Usage(
            f"call {tried.place} is a run of its own, {child}",
            hint=f"look at it: podium runs show {child}",
        )
    known = reports(log)
    values: dict[str, Json] = {}
    for call in tried.call.sees:
        seen = tried.state.calls[call]
        digest = seen.late or seen.report
        if digest in known:
            values[digest] = await value_of(known[digest], fetch)
    message = call_message(tried.state, values, tried.call.id, tried.attempt)
    recorded, record = None, None
    if (report := tried.report) is not None:
        value = await value_of(report, fetch)
        recorded = Result(status=report.status, fault=report.fault, value=value)
        record = report.record
        if report.record_blob is not None:
            record = decode_value(await fetch(report.record_blob))
    return Prepared(
        tried=tried,
        spec=spec,
        attempt=attempt_of(decode_call(message)),
        recorded=recorded,
        record=record,
    )


async def value_of(report: Report, fetch: Fetch) -> Json:
    """The value of a report, wherever it stands."""
    return report.value if report.blob is None else decode_value(await fetch(report.blob))


def turns(record: Json) -> list[dict[str, Json]]:
    """What an agent did within its attempt, a row for each request to its model.

    Raises:
        InvalidData: The record can't be read.
    """
    rows: list[dict[str, Json]] = []
    for each in exchanges(record) if record is not None else ():
        reply = each.reply
        row: dict[str, Json] = {"began_ms": each.began_ms, "took_ms": each.took_ms}
        if isinstance(reply, Said):
            calls = [
                {"tool": call.name, "arguments": call.arguments, **_use(used)}
                for call, used in zip(reply.tool_calls, each.tools, strict=False)
            ]
            row |= {"status": "OK", "text": reply.text, "calls": calls}
            row |= {"tokens": reply.spend.tokens}
        else:
            row |= {"status": reply.status, "text": reply.text, "calls": []}
        rows.append(row)
    return rows


def _use(used: Used) -> dict[str, Json]:
    row: dict[str, Json] = {"status": used.status, "value": used.value}
    row |= {"began_ms": used.began_ms, "took_ms": used.took_ms}
    return row | ({"turns": turns(used.record)} if used.record is not None else {})


def untrusted(
    spec: WorkerSpec, own: tuple[WorkerSpec, ...], *, live: bool, tools: bool = False
) -> str:
    """Why a worker that a log names is not hosted here; "" if it may be.

    A log may have come from anywhere: what it names must not have any function called, code run
    without walls, a command run, or a key sent somewhere.

    Args:
        spec: The worker, as the log has it.
        own: The workers of a pool of this user's.
        live: Whether its model is to be asked.
        tools: Whether the tools of its own are to be used.
    """
    known = [each for worker in own for each in (worker, *within(worker))]
    hosted = within(spec) if tools else []
    reasons = [
        _untrusted(spec, known, live=live),
        *(_untrusted(each, known, live=True) for each in hosted),
    ]
    return next(filter(None, reasons), "")


def _untrusted(spec: WorkerSpec, own: list[WorkerSpec], *, live: bool) -> str:
    kind = spec.adapter.partition(":")[0]
    alike = [each for each in own if each.adapter == spec.adapter]
    if kind == "function":
        if alike or is_tool(find(spec.adapter)):
            return ""
        return f"{spec.adapter} is no @podium.tool"
    names = {
        "a2a": ("url", "headers", "hosts"),
        "python": ("isolation",),
        "openai": ("base_url", "api_key_env") if live else (),
    }
    # Of any other kind all that its options say may do harm: a command, an address.
    judged = names.get(kind, tuple(spec.options))
    asked = [spec.options.get(name) for name in judged]
    needed = any(asked) or kind not in names
    if needed and asked not in ([each.options.get(n) for n in judged] for each in alike):
        return f"{spec.name} was recorded with options of its own ({', '.join(judged) or kind})"
    return ""


def _whole(spec: WorkerSpec) -> bool:
    """Whether no tool has to be asked what it is: hosting its agent imports nothing then."""
    named = spec.options.get("tools", ())
    try:
        return all(table.whole for table in msgspec.convert(named, tuple[ToolTable, ...]))
    except msgspec.ValidationError:
        return False


class Hosting:
    """The worker of an attempt, in this process.

    Args:
        prepared: The attempt.
        redactor: What is taken for a secret, besides what the run recorded to be one.
        secrets: Where secrets are, besides the environment.
        own: The workers of a pool of this user's.
        live: Whether an agent's model is asked anew; then its tools are used anew, too.
        tools: Whether an agent's tools are used anew, for the recorded replies of its model.

    Raises:
        NotFound, InvalidData: The worker can't be hosted here; the hint says what to do.
        InvalidData: What the run recorded to be a secret can't be looked for.
        Denied: It is not trusted, or a secret of its options is missing.
        Conflict: It is an agent's, and nothing of its model's replies was recorded.
    """

    def __init__(
        self,
        prepared: Prepared,
        redactor: Redactor,
        secrets: str = "",
        own: tuple[WorkerSpec, ...] = (),
        *,
        live: bool = False,
        tools: bool = False,
    ) -> None:
        self.prepared = prepared
        place, spec = prepared.tried.place, prepared.spec
        again = f"name the file of its pool: podium reproduce {place} --pool FILE"
        try:
            if why := untrusted(spec, own, live=live, tools=live or tools or not _whole(spec)):
                raise Denied(f"the worker of {place} is not hosted here: {why}", hint=again)
            own_too = redactor.also(prepared.tried.state.redact, prepared.tried.state.run)
            self.secrets = Secrets.of(spec, own_too, secrets)
            self.adapter: Adapter = workers.host(self.secrets.options(spec))
        except NotFound as error:
            raise NotFound(error.message, hint=again) from None
        self.replay: Replay | None = None
        if isinstance(self.adapter, A2AAdapter | OpenAIAdapter) and not live:
            if prepared.record is None or not isinstance(self.adapter, OpenAIAdapter):
                raise Conflict(
                    f"no reply of the agent is recorded for {place}",
                    hint="ask it anew: the same command with --live",
                )
            model = self.adapter.endpoint.model
            recorded = exchanges(prepared.record)
            self.replay = Replay(model, recorded, self.secrets.redactor)
            self.adapter.endpoint = self.replay
            if not tools:
                self.adapter.toolbox = self.replay

    async def run(self) -> Reproduced:
        """Make the attempt as a worker does."""
        outcome = await work_on(self.prepared.attempt, self.adapter, self.secrets)
        return await self._finished(outcome)

    async def run_here(self, call: Here) -> Reproduced:
        """Make the attempt without a time limit, the function called by ``call`` in this thread.

        Raises:
            Usage: What stands behind the worker is no function.
        """
        if not isinstance(self.adapter, FunctionAdapter):
            raise Usage(
                f"{self.prepared.spec.name} is no Python function, which a debugger could follow",
                hint="leave out --pdb and --break",
            )
        self.adapter.here = call
        attempt = msgspec.structs.replace(self.prepared.attempt, timeout_s=HERE_S)
        return await self._finished(await work_on(attempt, self.adapter, self.secrets))

    async def _finished(self, outcome: Outcome) -> Reproduced:
        outcome, data = await presentable(outcome, self.prepared.spec, self.secrets.redactor)
        made = Result(status=outcome.status, fault=outcome.fault, value=decode_value(data))
        return Reproduced(made=made, prompts=tuple(self.replay.changed) if self.replay else ())

    async def close(self) -> None:
        """Release what the worker holds."""
        await self.adapter.close()
