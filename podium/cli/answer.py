"""`podium answer`: what runs ask people, and a person's answer."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from podium.cli.options import COMMON, Common
from podium.cli.output import Output, iso
from podium.cli.signals import By, DryRun, after
from podium.cli.source import no_file
from podium.cli.world import current
from podium.render_text import ago, one_line
from protocol.actions import Json
from protocol.errors import NotFound, Usage

if TYPE_CHECKING:
    from podium.config import Config
    from podium.people import Asked

Call = Annotated[
    str | None, Parameter(help="Which of the run's questions, such as 1-0, if it asks several.")
]
AsJson = Annotated[bool, Parameter(help="The answer is JSON: a number, a list, an object.")]


def answer(
    run: str | None = None,
    text: str | None = None,
    /,
    *,
    call: Call = None,
    parsed: AsJson = False,
    by: By = None,
    dry_run: DryRun = False,
    common: Common = COMMON,
) -> int:
    """Answer what a run asks a person; bare, list what is asked.

    Parameters
    ----------
    run
        The whole id of the run.
    text
        The answer.
    """
    output = Output(common.json)
    config = common.load().config
    if run is None:
        return _list(output, config)
    no_file(run, "answer {run}")
    if text is None:
        raise Usage("There is no answer.", hint=f'podium answer {run} "..."')
    value: Json = text
    if parsed:
        try:
            value = msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise Usage(f"the answer is no JSON: {error}", hint="quote it for your shell") from None
    which = asyncio.run(_answered(config, run, call, value, by or current().user, dry_run))
    output.mutation(run, f"call {which} of run {run} is answered", dry_run=dry_run, event_id=None)
    if not dry_run:
        after(output, config, run, "the answer")
    return 0


async def _answered(
    config: "Config", run: str, call: str | None, value: Json, by: str, dry_run: bool
) -> str:
    from podium.people import nobody_asked

    async with current().deployments.connect(config) as host:
        found = await host.client.find(run)
        if found != run:
            raise Usage("answer needs the whole id of a run.", hint=f"podium answer {found} ...")
        asked = await host.client.asked(run)
        if call is None and len(asked) > 1:
            names = ", ".join(each.call for each in asked)
            raise Usage(
                f"run {run} asks {len(asked)} questions: {names}", hint="say which with --call"
            )
        if call is None and not asked:
            raise nobody_asked(await host.client.log(run))
        which = call if call is not None else asked[0].call
        if not dry_run:
            await host.client.answer(run, which, value, by)
        return which


def _list(output: Output, config: "Config") -> int:
    async def read() -> "list[Asked]":
        try:
            async with current().deployments.connect(config) as host:
                return await host.client.asked()
        except NotFound:  # nothing was ever run here
            return []

    asked = asyncio.run(read())
    if not (output.as_json or asked):
        output.say("nobody is asked anything")
        return 0
    rows: list[dict[str, Any]] = [
        {
            "run": each.run,
            "call": each.call,
            "who": each.who,
            "question": each.arguments.get("question"),
            "choices": each.arguments.get("choices"),
            "since": iso(each.since),
        }
        for each in asked
    ]
    output.read(rows, _table(asked, output), counts={"questions": len(asked)}, cursor=None)
    if asked:
        output.hint(f'answer one: podium answer {asked[0].run} "..."')
    return 0


def _table(asked: "list[Asked]", output: Output) -> Any:
    from podium.render_rich import table

    now = output.world.now()
    rows = []
    for each in asked:
        choices = each.arguments.get("choices")
        of = f" ({' / '.join(map(str, choices))})" if choices else ""
        question = one_line(f"{each.arguments.get('question', '')}{of}")
        rows.append([each.run, each.call, each.who, ago(now - each.since), question])
    heads = ["run", "call", "who", "since>", "question"]
    return table(heads, rows, "question", cut=output.console().width)
