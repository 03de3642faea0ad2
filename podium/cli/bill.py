"""`podium runs bill`: what a run has spent, on whom."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from podium.cli.options import COMMON, Common
from podium.cli.output import Output
from podium.cli.source import source
from podium.render_text import duration, money, one_line

if TYPE_CHECKING:
    from replay.bill import Item

Alone = Annotated[
    bool, Parameter(help="Only this run: of runs below it, what their calls have reported.")
]


def bill(run: str, /, *, alone: Alone = False, common: Common = COMMON) -> int:
    """What a run and all below it have spent: tokens, money and time of each worker.

    Parameters
    ----------
    run
        Its id, the beginning of it, or an exported file.
    """
    from replay.bill import total

    output = Output(common.json)
    items = asyncio.run(_items(common, run, alone))
    whole = total(items)
    rows = [_row(item) for item in (*items, whole)]
    output.read(rows, _table(items, whole), counts={"workers": len(items)})
    return 0


async def _items(common: Common, name: str, alone: bool) -> "list[Item]":
    from replay.bill import bill as made
    from replay.family import family

    async with source(common) as found:
        log = await found.log(name)
        if alone:
            return made([log])
        reader = await found.reader(name)
        return made([each.log async for each in family(reader, log.run) if not each.part])


def _row(item: "Item") -> dict[str, Any]:
    return {
        "who": item.who,
        "kind": item.kind or None,
        "times": item.times,
        "tokens": item.spend.tokens,
        "input_tokens": item.usage.input,
        "output_tokens": item.usage.output,
        "cost_usd": item.spend.cost / 1e6,
        "time_ms": item.time_ms,
    }


def _table(items: "list[Item]", whole: "Item") -> Any:
    from podium.render_rich import table

    rows = [
        [
            one_line(item.who),
            item.kind,
            str(item.times),
            f"{item.spend.tokens:,}",
            f"{item.usage.input:,}",
            f"{item.usage.output:,}",
            money(item.spend.cost),
            duration(item.time_ms),
        ]
        for item in (*items, whole)
    ]
    return table(["who", "is", "times>", "tokens>", "in>", "out>", "cost>", "time>"], rows, "who")
