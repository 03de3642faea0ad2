"""`podium label`: what a person says of a run, at any time, for those who look at it or learn."""

import asyncio
import math
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from podium.cli.options import COMMON, Common
from podium.cli.output import Output
from podium.cli.signals import By, DryRun
from podium.cli.source import no_file
from podium.cli.world import current
from podium.render_text import one_line, value_text
from protocol.actions import Json
from protocol.errors import Usage

if TYPE_CHECKING:
    from podium.config import Config

Parsed = Annotated[bool, Parameter(help="The value is JSON: a number, true, a list, an object.")]
Rewards = Annotated[
    tuple[str, ...],
    Parameter(
        name="--reward",
        negative=(),
        help="CHANNEL=NUMBER: a score of the run; the last of a channel counts. Can be repeated.",
    ),
]


def label(
    run: str,
    key: str | None = None,
    value: str | None = None,
    /,
    *,
    reward: Rewards = (),
    parsed: Parsed = False,
    by: By = None,
    dry_run: DryRun = False,
    common: Common = COMMON,
) -> int:
    """Say of a run how good it is, also long after it has ended or was archived.

    It stands in the run's inbox, with who said it and what of the run there was by then. Nothing is
    taken back: what is said later counts.

    Parameters
    ----------
    run
        The whole id of the run.
    key
        What is said of, such as helpful.
    value
        What is said.
    """
    output = Output(common.json)
    config = common.load().config
    no_file(run, "label {run} KEY VALUE")
    if key is not None and value is None:
        raise Usage("There is no value.", hint=f'podium label {run} {key} "..."')
    if key is None and not reward:
        raise Usage(
            "Nothing is said of the run.",
            hint=f"podium label {run} KEY VALUE   (or --reward CHANNEL=NUMBER)",
        )
    said: list[tuple[str, Json]] = []
    if key is not None and value is not None:
        said = [(key, _value(value) if parsed else value)]
    scores = [_score(each) for each in reward]
    asyncio.run(_say(config, run, said, scores, by or current().user, dry_run))
    parts = [f"label {one_line(name, 64)} = {value_text(what)}" for name, what in said]
    parts += [f"reward {channel} = {number:g}" for channel, number in scores]
    output.mutation(run, f"run {run}: {', '.join(parts)}", dry_run=dry_run)
    if not dry_run:
        output.hint(
            f"see it: podium runs show {run}   or what the run is worth: podium score {run}"
        )
    return 0


def _value(text: str) -> Json:
    try:
        found: Json = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise Usage(f"the value is no JSON: {error}", hint="quote it for your shell") from None
    return found


def _score(text: str) -> tuple[str, float]:
    channel, equals, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not channel or not equals or not math.isfinite(value):
        raise Usage(
            f"{text!r} is no reward.", hint="Give a channel and a number: --reward accuracy=1"
        )
    return channel, value


async def _say(
    config: "Config",
    run: str,
    labels: list[tuple[str, Json]],
    rewards: list[tuple[str, float]],
    by: str,
    dry_run: bool,
) -> None:
    from replay.chain import end_of

    async with current().deployments.connect(config) as host:
        found = await host.client.find(run)
        if found != run:
            raise Usage("label needs the whole id of a run.", hint=f"podium label {found} ...")
        head = end_of(await host.client.log(run))
        if dry_run:
            return
        for key, value in labels:
            await host.client.label(run, key, value, by=by, head=head)
        for channel, number in rewards:
            await host.client.reward(run, channel, number, by=by, head=head)
