"""`podium score`: what runs are worth, made of their logs as often as one likes."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from podium.cli.options import COMMON, Common, redaction
from podium.cli.output import Output
from podium.cli.source import Source, no_file, source
from podium.cli.world import current
from podium.reading import Found, of_each
from podium.render_text import count
from protocol.errors import PodiumError, Usage

if TYPE_CHECKING:
    from podium.judging import HostedJudges
    from trainer.records import Rollout
    from trainer.rewards import Recipe, Scored

DEFAULT: Final = "paramanager"

COLUMNS: Final = {
    "accuracy": "right",
    "format": "format",
    "diversity": "diverse",
    "completion": "complete",
    "parallelism": "parallel",
    "rounds": "rounds",
    "calls": "calls",
    "critical_steps": "critical",
    "tokens": "tokens",
    "cost": "cost $",
    "time": "time s",
}
"""Channels that a person is shown, and their headings; `--json` has all."""


def score(
    *run: Annotated[str, Parameter(help="Ids, beginnings of them, or exported files.")],
    every: Annotated[
        bool, Parameter(name="--all", help="All runs that are no part of another one.")
    ] = False,
    preset: Annotated[
        str,
        Parameter(help="paramanager, conductor, toolorchestra, parl or puppeteer."),
    ] = DEFAULT,
    recipe: Annotated[
        Path | None, Parameter(help="A file (JSON or TOML) with terms of your own instead.")
    ] = None,
    progress: Annotated[
        float, Parameter(help="How much of a training is done, 0 to 1: for what is annealed.")
    ] = 1.0,
    judge: Annotated[
        bool,
        Parameter(
            help="Run the programs and ask the judges that checks name, where that was not done, "
            "and keep what they say."
        ),
    ] = False,
    pool: Annotated[str | None, Parameter(help="The pool file (TOML) that has the judges.")] = None,
    common: Common = COMMON,
) -> int:
    """What runs are worth: every channel, and one reward made of them.

    Nothing is run again. The runs that are named are one batch, for presets that compare them.
    """
    output = Output(common.json)
    chosen = _recipe(preset, recipe)
    if not run and not every:
        raise Usage("No run is named.", hint="podium score RUN, or podium score --all")
    command = _Score(common, pool)
    found, problems = asyncio.run(command.read(run, every=every, judge=judge))
    code = _show(output, found, chosen, progress, every=every)
    output.cures((f"run {name}: {error.message}", error.hint) for name, error in problems)
    return 1 if problems else code


def _recipe(preset: str, file: Path | None) -> "Recipe":
    from trainer.rewards import Recipe
    from trainer.rewards import preset as known

    if file is None:
        return known(preset)
    decode = msgspec.json.decode if file.suffix == ".json" else msgspec.toml.decode
    try:
        return decode(((current().folder or Path()) / file).read_bytes(), type=Recipe)
    except OSError as error:
        raise Usage(f"{file} can't be read: {error.strerror}", hint="correct the path") from None
    except (ValueError, TypeError) as error:
        raise Usage(f"{file} is no recipe: {error}", hint="see docs/rewards.md") from None


class _Score:
    """One `podium score`, with what it was told."""

    def __init__(self, common: Common, pool: str | None) -> None:
        self.common = common
        self.config = common.load(pool=pool).config

    async def read(
        self, names: tuple[str, ...], *, every: bool, judge: bool
    ) -> "tuple[Found[Rollout], list[tuple[str, PodiumError]]]":
        """The rollouts, and what could not be judged."""
        problems: list[tuple[str, PodiumError]] = []
        async with source(self.common) as runs:
            roots = await self._roots(runs) if every else Found[str]([], {})
            named = dict.fromkeys((*names, *roots.there))
            found = await of_each(named, lambda name: _rollout(runs, name))
            found.unread.update(roots.unread)
            if not (found.there or every):
                found.all()  # there is nothing else to be told
            if not judge:
                return found, problems
            for name in named:
                no_file(name, "score {run} --judge")
            judges = self._judges()
            try:
                made = [await self._judged(each, runs, judges, problems) for each in found.there]
            finally:
                await judges.close()
        return Found(made, found.unread), problems

    @staticmethod
    async def _roots(runs: Source) -> Found[str]:
        rows, unread = await (await runs.client()).listed()
        return Found([row.run for row in rows if row.outcome and not row.parent], unread)

    def _judges(self) -> "HostedJudges":
        from podium import poolfile
        from podium.judging import HostedJudges
        from podium.poolmodules import import_from_all
        from protocol.redaction import Redactor

        secrets = self.config.secrets.place()
        redactor = Redactor(redaction(self.config))
        standing = current().deployments.standing(self.config)
        if self.config.pool:
            path = Path(self.config.pool).expanduser().absolute()
            own = tuple(poolfile.build(path, poolfile.read(path), secrets).workers)
            return HostedJudges(own, redactor, secrets)
        if standing is not None:
            import_from_all(standing.folders)
            return HostedJudges(standing.workers.workers, redactor, secrets)
        return HostedJudges((), redactor, secrets)

    async def _judged(
        self,
        rollout: "Rollout",
        runs: Source,
        judges: "HostedJudges",
        problems: list[tuple[str, PodiumError]],
    ) -> "Rollout":
        """The rollout, with what a program or a judge says of it, if that was missing."""
        from trainer.rewards import judged, missing

        if not missing(rollout):
            return rollout
        try:
            said = await judged(rollout, judges)
        except PodiumError as error:
            problems.append((rollout.run, error))
            return rollout
        if said is None:
            return rollout
        client = await runs.client()
        await client.reward(said.run, said.channel, said.value, by=said.by, head=said.head)
        return msgspec.structs.replace(rollout, rewards=(*rollout.rewards, said))


async def _rollout(runs: Source, name: str) -> "Rollout":
    from trainer.fold import read_fold

    log = await runs.log(name)
    return await read_fold(await runs.reader(name), log)


def _show(
    output: Output, rollouts: "Found[Rollout]", recipe: "Recipe", progress: float, *, every: bool
) -> int:
    """Show what each is worth; the exit code."""
    from podium.render_rich import table
    from trainer.rewards import score as scored

    found, unread = scored(rollouts.there, recipe, progress), rollouts.unread
    kinds = {"scored": 0, "unscorable": 0, "unread": len(unread)}
    for each in found:
        kinds["unscorable" if each.reward is None else "scored"] += 1
    shown = {name: head for name, head in COLUMNS.items() if any(name in e.channels for e in found)}
    lines = [
        [
            each.rollout,
            each.why if each.reward is None else f"{each.reward:.4g}",
            *(_cell(each, name) for name in shown),
        ]
        for each in found
    ]
    heads = ["run", "reward>", *(f"{head}>" for head in shown.values())]
    rows = [msgspec.to_builtins(each) for each in found]
    output.read(rows, table(heads, lines), counts=kinds, unread=unread)
    code = output.unread(unread)
    if every and not output.as_json:
        told = ", ".join(f"{number:,} {name}" for name, number in kinds.items() if number)
        output.text(f"\n{count(len(found) + len(unread), 'run')}: {told or 'nothing to score'}")
    if recipe.annealed:
        output.hint(
            f"the reward is annealed, and scored as where {progress:g} of a training is done: "
            "--progress 0 to 1"
        )
    unjudged = [each for each in found if each.why == "no accuracy"]
    if unjudged:
        output.hint(
            "no accuracy: the task has no check, or one that a program or a judge has to make: "
            f"podium score {unjudged[0].rollout} --judge"
        )
    return code


def _cell(scored: "Scored", channel: str) -> str:
    value: Any = scored.channels.get(channel)
    return "" if value is None else f"{value:.4g}"
