"""`podium trace`: the trace of a run, made from its log, to an OpenTelemetry backend or a file.

The ids come from the log, so a trace that is exported twice, or was exported live, is the same.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from podium.cli.options import COMMON, Common
from podium.cli.output import Output, iso
from podium.cli.source import source
from podium.cli.world import current
from podium.render_text import duration, money, one_line
from protocol import semconv
from protocol.actions import MICRO, Json
from protocol.errors import InvalidData, NotFound, Unreachable, Usage

if TYPE_CHECKING:
    from podium.cli.source import Source
    from replay.chain import RunLog
    from replay.spans import Span


def export(
    run: str,
    /,
    *,
    children: Annotated[bool, Parameter(help="With the runs below it, as one tree.")] = False,
    otlp: Annotated[
        str | None,
        Parameter(help="Send it to an OTLP/HTTP address, such as http://localhost:4318."),
    ] = None,
    file: Annotated[Path | None, Parameter(help="Write it to a file, as OTLP JSON.")] = None,
    content: Annotated[bool, Parameter(help="With tasks, arguments, results and answers.")] = False,
    messages: Annotated[
        bool, Parameter(help="With the spans of each attempt's message: published, processed.")
    ] = False,
    common: Common = COMMON,
) -> int:
    """Make the trace of a run from its log, show it, and send it on.

    The ids come from the log: exported twice, it is the same trace. Without
    --otlp or --file it goes where OTEL_EXPORTER_OTLP_ENDPOINT says, and
    nowhere if that says nothing.

    Parameters
    ----------
    run
        Its id, or the beginning of it.
    """
    from replay.trace import spans

    if otlp is not None and file is not None:
        raise Usage("--otlp and --file are two places.", hint="Give one, then the other.")
    output = Output(common.json)
    logs, records = asyncio.run(_logs(common, run, children))
    found = spans(logs, records=records, content=content, messages=messages)
    where = _deliver(found, otlp, file)
    _show(output, found)
    going = [log.run for log in logs if log.state().phase != "ended"]
    for each in going:
        output.say(f"run {each} goes on: only what has ended is in its trace")
    if where:
        traces = list(dict.fromkeys(span.trace for span in found))
        several = f"{len(traces)} traces from " if len(traces) > 1 else "trace "
        output.say(f"{len(found)} spans of {several}{traces[0] if traces else '-'}: {where}")
    else:
        output.hint(f"send it on: podium trace export {logs[0].run} --otlp http://localhost:4318")
    return 0


async def _logs(
    common: Common, name: str, children: bool
) -> "tuple[list[RunLog], dict[str, Json]]":
    """The logs of a run and of those below it; and what their agents' turns are read from."""
    from protocol.codec import decode_value
    from replay.trace_turns import in_blobs

    records: dict[str, Json] = {}
    async with source(common) as runs:
        root = await runs.log(name)
        if not root.commits:
            raise NotFound(
                f"run {root.run} has no log yet", hint=f"wait for it: podium runs watch {root.run}"
            )
        logs = [root, *(await _below(runs, root) if children else ())]
        for log in logs:
            for report, ref in in_blobs(log).items():
                with contextlib.suppress(NotFound, InvalidData):  # its attempt is traced anyway
                    records[report] = decode_value(await runs.blob(ref))
        return logs, records


async def _below(runs: "Source", above: "RunLog") -> "list[RunLog]":
    """The runs that answered calls of this one, and those below them, as far as there are any."""
    from protocol.subjects import child_id

    found: list[RunLog] = []
    state = above.state()
    for name, call in state.calls.items():
        worker = state.workers.get(call.call.worker)
        if worker is None or worker.kind != "conductor":
            continue
        for attempt in range(1, call.attempt + 1):
            try:
                child = await runs.log(child_id(above.run, name, attempt))
            except NotFound:  # it is still queued, or never was
                continue
            found += [child, *await _below(runs, child)]
    return found


def _deliver(found: "list[Span]", otlp: str | None, file: Path | None) -> str:
    """Send them where they are to go; says where that was, "" for nowhere."""
    from actors import tracing

    environment = current().environment
    if file is not None:
        _write(found, file, environment)
        return f"written to {file}"
    if otlp is None and not tracing.wanted(environment):
        return ""
    if not tracing.installed():
        raise Usage(
            "OpenTelemetry is not installed, so nothing can be sent.",
            hint="pip install 'podium[otel]', or write a file: --file trace.json",
        )
    from podium.tracing.otlp import Sender

    place = otlp or "where OTEL_EXPORTER_OTLP_ENDPOINT says"
    sender = Sender(otlp or "")
    try:
        sent = sender.send(found)
    finally:
        sender.close()
    if not sent:
        raise Unreachable(
            f"the spans were not taken: {place}",
            hint="Does an OTLP backend take HTTP there? Try again: nothing doubles.",
        )
    lost = f"; {sender.given_up} were refused there, and given up" if sender.given_up else ""
    return f"sent to {place}{lost}"


def _write(found: "list[Span]", file: Path, environment: Mapping[str, str]) -> None:
    from replay.spans import otlp_json

    name = environment.get("OTEL_SERVICE_NAME", "").strip() or semconv.SERVICE
    try:
        file.write_bytes(otlp_json(found, {semconv.SERVICE_NAME: name}))
    except OSError as error:
        raise Usage(f"{file} can't be written: {error}", hint="Name another --file.") from None


def _show(output: Output, found: "list[Span]") -> None:
    from replay.spans import tree

    if output.as_json:
        output.read([row(span) for span in found], counts=_counts(found))
    else:
        for depth, span in tree(found):
            output.text(_line(depth, span))


def _counts(found: "list[Span]") -> dict[str, int]:
    return {"spans": len(found), "errors": sum(bool(span.error) for span in found)}


def _line(depth: int, span: "Span") -> str:
    """One span, for a person."""
    told = [duration(round(span.ms))]
    tokens, cost = span.attributes.get(semconv.TOKENS), span.attributes.get(semconv.COST_USD)
    if isinstance(tokens, int):
        told.append(f"{tokens:,} tokens")
    if isinstance(cost, float):
        told.append(money(round(cost * MICRO)))
    if span.attributes.get(semconv.ATTEMPT, 1) not in (0, 1):
        told.append(f"attempt {span.attributes[semconv.ATTEMPT]}")
    if span.error:
        told.append(f"✗ {one_line(span.message)}")
    return f"{'  ' * depth}{one_line(span.name)}  {' · '.join(told)}"


def row(span: "Span") -> dict[str, Any]:
    """A span, for programs."""
    return {
        "trace_id": span.trace,
        "span_id": span.id,
        "parent_id": span.parent or None,
        "name": span.name,
        "kind": span.kind,
        "start": iso(span.start_ns // 1_000_000),
        "ms": span.ms,
        "error": span.error or None,
        "attributes": span.attributes,
        "events": [each.name for each in span.happenings],
        "links": [{"trace_id": e.trace, "span_id": e.span, "kind": e.kind} for e in span.links],
    }
