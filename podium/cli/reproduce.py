"""`podium reproduce`: one call of a run again, here, and what it gives beside what was recorded."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from podium.cli.interrupts import EXIT_INTERRUPTED
from podium.cli.options import COMMON, Common, redaction
from podium.cli.output import Output
from podium.cli.source import call_name, source
from podium.cli.world import current
from podium.render_text import one_line
from protocol.errors import Usage

if TYPE_CHECKING:
    from podium.reproducing import Hosting, Prepared, Reproduced
    from protocol.actions import WorkerSpec
    from replay.reproduce import Result, Tried

MAX_DIFF_LINES: Final = 200
"""Lines of a difference that are shown to people: a few screens. Programs get all of it."""


def reproduce(
    call: str,
    /,
    *,
    attempt: Annotated[
        int | None, Parameter(help="Which try of the call; the one that counts by default.")
    ] = None,
    pdb: Annotated[bool, Parameter(help="Look around where the function raises.")] = False,
    stop: Annotated[
        bool, Parameter(name="--break", help="Stop at the function's first line.")
    ] = False,
    live: Annotated[
        bool, Parameter(help="Ask an agent's model anew, in place of its recorded replies.")
    ] = False,
    live_tools: Annotated[
        bool, Parameter(help="Use an agent's own tools anew, for its model's recorded replies.")
    ] = False,
    pool: Annotated[
        str | None, Parameter(help="The pool file beside which its function is.")
    ] = None,
    common: Common = COMMON,
) -> int:
    """Make one call of a run again, here, and compare.

    It gets the recorded arguments. Nothing is written to any log. Ends with 0 if the result is the
    recorded one, with 1 if it differs.

    Parameters
    ----------
    call
        RUN/CALL, such as yspt9/2-0, or RUN/CALL/ATTEMPT.
    """
    output = Output(common.json)
    name = call_name(call)
    if common.json and (pdb or stop):
        raise Usage("a debugger talks on stdout, as --json does", hint="leave out one of them")
    if attempt is not None and name.attempt not in (None, attempt):
        raise Usage(f"{call} is attempt {name.attempt}, not {attempt}", hint="leave out --attempt")
    command = _Reproduce(output, common, pool, live, live_tools)
    number = attempt if name.attempt is None else name.attempt
    return asyncio.run(command.run(name.run, name.call, number, pdb=pdb, stop=stop))


class _Reproduce:
    """One `podium reproduce`, with what it was told."""

    def __init__(
        self, output: Output, common: Common, pool: str | None, live: bool, tools: bool
    ) -> None:
        self.output, self.common, self.live, self.tools = output, common, live, tools
        self.config = common.load(pool=pool).config
        self.pool = f" --pool {pool}" if pool else ""

    async def run(self, run: str, call: str, attempt: int | None, *, pdb: bool, stop: bool) -> int:
        """Make it again, and say what came of it."""
        from podium.poolmodules import import_registered
        from podium.reproducing import prepare
        from replay.reproduce import tried

        async with source(self.common) as runs:
            log = await runs.log(run)
            found = tried(log, call, attempt)
            if found.attempt == 0:
                return self._never_started(found)
            prepared = await prepare(log, found, runs.blob)
            if not self.config.nats.url:
                import_registered(await runs.registry(), [prepared.spec])
        hosting = self._hosted(prepared)
        try:
            if pdb or stop:
                from podium.debugging import Debugger

                debugger = Debugger(stop=stop, post_mortem=pdb)
                made = await hosting.run_here(debugger.call)
                if debugger.left:
                    self.output.say("left the debugger: nothing is compared")
                    return EXIT_INTERRUPTED
            else:
                made = await hosting.run()
        finally:
            await hosting.close()
        return self._compared(prepared, made)

    def _hosted(self, prepared: "Prepared") -> "Hosting":
        from podium import poolfile
        from podium.poolmodules import import_from_all
        from podium.reproducing import Hosting
        from protocol.redaction import Redactor

        config = self.config
        secrets = config.secrets.place()
        own: tuple[WorkerSpec, ...] = ()
        standing = current().deployments.standing(config)
        if config.pool:
            path = Path(config.pool).expanduser().absolute()
            own = tuple(poolfile.build(path, poolfile.read(path), secrets).workers)
        elif standing is not None:
            import_from_all(standing.folders)
            own = standing.workers.workers
        redactor = Redactor(redaction(config))
        return Hosting(prepared, redactor, secrets, own, live=self.live, tools=self.tools)

    def _never_started(self, found: "Tried") -> int:
        """The call was settled before any worker had it: the arguments didn't fit, most often."""
        from protocol.schemas import misfit

        settled = found.settled
        assert settled is not None
        worker = found.call.worker
        today = misfit(found.spec.parameters, found.call.arguments) if found.spec else ""
        row = {
            "call": found.place,
            "worker": worker,
            "arguments": found.call.arguments,
            "started": False,
            "recorded": {
                "status": settled.status,
                "fault": settled.fault,
                "value": settled.value,
            },
            "schema_error": today or None,
            "schema": found.spec.parameters if found.spec else None,
        }
        if self.output.as_json:
            self.output.read([row], counts={"never_started": 1})
            return 0
        self.output.text(f"{found.place}  {worker}: its worker was never started")
        self.output.text(f"arguments   {_json(found.call.arguments)}")
        self.output.text(f"recorded    {settled.status} ({settled.fault}): {settled.value}")
        if today and today != settled.value:
            self.output.text(f"today       {today}")
        if found.spec is not None:
            self.output.text(f"schema      {_json(found.spec.parameters)}")
        self.output.hint(
            "there is nothing to run: mend the description or the schema of the worker"
        )
        return 0

    def _compared(self, prepared: "Prepared", made: "Reproduced") -> int:
        from replay.reproduce import diff

        recorded = prepared.recorded
        differs = recorded.differs(made.made) if recorded is not None else []
        lines = diff(recorded, made.made) if recorded is not None else []
        different = bool(differs or made.prompts)
        if self.output.as_json:
            row = self._row(prepared, made) | {
                "differs": differs,
                "prompts": list(made.prompts),
                "diff": lines,
                "same": None if recorded is None else not different,
            }
            kind = "unrecorded" if recorded is None else "differs" if different else "same"
            self.output.read([row], counts={kind: 1})
            return int(different)
        self._show(prepared, made)
        for line in lines[:MAX_DIFF_LINES]:
            self.output.text(line)
        if len(lines) > MAX_DIFF_LINES:
            self.output.text(f"… {len(lines) - MAX_DIFF_LINES} more lines: --json has all")
        for part in made.prompts:
            self.output.text(f"the prompt differs from the recorded one at {part}")
        self._verdict(prepared, differs, made)
        return int(different)

    def _verdict(self, prepared: "Prepared", differs: list[str], made: "Reproduced") -> None:
        place = prepared.tried.place
        if prepared.recorded is None:
            self.output.say("no report of this attempt is recorded: there is nothing to compare")
        elif differs:
            self.output.say(f"differs from what was recorded: {', '.join(differs)}")
        elif not made.prompts:
            self.output.say("the same as recorded")
        if made.made.status == "EXEC_ERR" and prepared.spec.adapter.startswith("function:"):
            again = f"podium reproduce {place}{self.pool} --pdb"
            self.output.hint(f"look around where it raised: {again}")

    def _row(self, prepared: "Prepared", made: "Reproduced") -> dict[str, Any]:
        from podium.reproducing import turns

        recorded = prepared.recorded
        return {
            "call": prepared.tried.place,
            "worker": prepared.spec.name,
            "adapter": prepared.spec.adapter,
            "arguments": prepared.attempt.arguments,
            "started": True,
            "counts": prepared.tried.counts,
            "live": self.live,
            "live_tools": self.live or self.tools,
            "recorded": msgspec.to_builtins(recorded) if recorded is not None else None,
            "turns": turns(prepared.record),
            "reproduced": msgspec.to_builtins(made.made),
        }

    def _show(self, prepared: "Prepared", made: "Reproduced") -> None:
        spec, output = prepared.spec, self.output
        output.text(f"{prepared.tried.place}  {spec.name} ({spec.adapter})")
        output.text(f"arguments   {_json(prepared.attempt.arguments)}")
        for call, value in prepared.attempt.sees.items():
            output.text(f"sees {call:<6} {one_line(_json(value))}")
        self._turns(prepared)
        if prepared.recorded is not None:
            output.text(f"recorded    {_result(prepared.recorded)}")
        output.text(f"reproduced  {_result(made.made)}")

    def _turns(self, prepared: "Prepared") -> None:
        """What an agent did with tools of its own, as recorded."""
        from podium.reproducing import turns

        for number, turn in enumerate(turns(prepared.record), 1):
            for call in turn["calls"]:
                said = f"{call['status']}: {one_line(_json(call['value']))}"
                asked = one_line(call["arguments"])
                self.output.text(f"turn {number:<6} {one_line(call['tool'])} {asked} -> {said}")


def _result(result: "Result") -> str:
    fault = "" if result.fault == "none" else f" ({result.fault})"
    return f"{result.status}{fault}: {one_line(_json(result.value))}"


def _json(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
