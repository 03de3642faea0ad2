"""`podium gym`: what the gym draws, for people who want to see it."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from podium.cli.options import COMMON, Common
from podium.cli.output import Output
from protocol.errors import NotFound, Usage

if TYPE_CHECKING:
    from trainer.gym.episodes import Episode

Set = Annotated[str, Parameter(name="--set", help="Of which set.")]
Family = Annotated[str, Parameter(help="Only of this family.")]
Count = Annotated[int, Parameter(help="How many episodes.")]
Families = Annotated[bool, Parameter(help="Each family apart, too.")]
Home = Annotated[bool, Parameter(name="--hosted", help="With what a deployment hosts.")]
Small = Annotated[bool, Parameter(help="The gym in small: one kind of question, four workers.")]


def show(
    seed: int,
    /,
    *,
    of: Set = "train",
    family: Family = "",
    home: Home = False,
    common: Common = COMMON,
) -> int:
    """An episode: its question, its pool and what is behind it, its plan and its answer.

    Parameters
    ----------
    seed
        Any number: the same one draws the same episode everywhere.
    """
    from trainer.gym.episodes import draw
    from trainer.gym.hosted import at_home
    from trainer.gym.questions import FAMILIES
    from trainer.gym.splits import SETS

    check_name(of, "set", SETS)
    if family:
        check_name(family, "family", FAMILIES)
    episode = draw(seed, of, (family,) if family else ())
    if home:
        episode = at_home(episode)
    Output(common.json).read([_row(episode)], *_picture(episode), counts={"episodes": 1})
    return 0


def play(
    policy: str,
    /,
    *,
    of: Set = "seen",
    count: Count = 100,
    seed: int = 0,
    family: Family = "",
    families: Families = False,
    common: Common = COMMON,
) -> int:
    """Have somebody play, in the fast lane, and say how well it went.

    Parameters
    ----------
    policy
        oracle, serial, strongest, teacher, sloppy, keywords, router, random; or
        any policy of yours that is no endpoint's, such as local:FOLDER.
    seed
        Of the first episode; the others are those that follow.
    """
    from trainer.gym.episodes import draws
    from trainer.gym.evaluate import evaluate
    from trainer.gym.play import run
    from trainer.gym.questions import FAMILIES
    from trainer.gym.splits import SETS
    from trainer.gym.tables import rows

    check_name(of, "set", SETS)
    if family:
        check_name(family, "family", FAMILIES)
    if count < 1:
        raise Usage(f"{count} episodes say nothing", hint="Give --count 1 or more.")
    output = Output(common.json)
    episodes = list(draws(range(seed, seed + count), of, (family,) if family else ()))
    report = evaluate(episodes, _player(policy, episodes), run)
    head, *body = rows([report], families=families)
    from podium.render_rich import table

    found = [msgspec.to_builtins(report)]
    output.read(found, table(head, body, head[0]), counts={"episodes": count})
    return 0


def _player(name: str, episodes: "list[Episode]") -> Any:
    """Who plays, by a short name."""
    from actors import policies
    from actors.policies import local
    from trainer.gym.baselines import Random
    from trainer.gym.gate import player
    from trainer.gym.keywords import Router, Rules
    from trainer.gym.oracle import Oracle, Strongest, serial
    from trainer.gym.teacher import SLOPPY, Teacher

    known: dict[str, Callable[[], Any]] = {
        "oracle": lambda: Oracle(episodes),
        "serial": lambda: serial(episodes),
        "strongest": lambda: Strongest(episodes),
        "teacher": lambda: Teacher(episodes),
        "sloppy": lambda: Teacher(episodes, SLOPPY),
        "keywords": Rules,
        "router": Router,
        "random": Random,
    }
    if name in known:
        return known[name]()
    kind, _, folder = name.partition(":")
    if kind == local.KIND:
        return player(Path(folder))
    return policies.find(name)


def pool(*, small: Small = False, common: Common = COMMON) -> int:
    """The pool file of the gym's workers, for ``podium up --pool``."""
    from trainer.gym.hosted import catalogue, pool_file
    from trainer.gym.small import NAMES, hosted_file

    output = Output(common.json)
    if common.json:
        rows = [
            {"worker": spec.name, **spec.options}
            for spec in catalogue().workers
            if not small or spec.name in NAMES
        ]
        output.read(rows, counts={"workers": len(rows)})
    else:
        output.text((hosted_file() if small else pool_file()).rstrip("\n"))
    return 0


def check_name(name: str, what: str, known: Collection[str]) -> None:
    """Raise `NotFound` where the gym has nothing of that name."""
    if name not in known:
        raise NotFound(f"the gym has no {what} {name!r}", hint=f"one of: {', '.join(known)}")


def _row(episode: "Episode") -> dict[str, Any]:
    return {
        "set": episode.set,
        "seed": episode.seed,
        "family": episode.family,
        "question": episode.task.text,
        "entities": list(episode.entities),
        "answer": episode.answer,
        "check": episode.task.check,
        "plan": [{"role": need.role, "text": need.text} for need in episode.plan.needs],
        "pool": [
            {
                "name": spec.name,
                "description": spec.description,
                "cost_usd": spec.reserve.cost / 1e6,
                "kind": member.kind,
                "fault_rate": member.fault_rate,
            }
            for spec, member in zip(episode.pool.workers, episode.members, strict=True)
        ],
    }


def _picture(episode: "Episode") -> tuple[Any, ...]:
    from rich.text import Text

    from podium.render_rich import table
    from podium.render_text import money, one_line
    from protocol.references import as_text

    pool = zip(episode.pool.workers, episode.members, strict=True)
    workers = [
        [
            one_line(spec.name),
            one_line(spec.description),
            money(spec.reserve.cost),
            member.kind,
            f"{100 * member.fault_rate:.0f} %",
        ]
        for spec, member in pool
    ]
    needs = zip(episode.plan.needs, episode.outputs, strict=True)
    steps = [
        [f"#{number}", need.role, need.text, one_line(as_text(output))]
        for number, (need, output) in enumerate(needs, 1)
    ]
    marks = ", ".join(f"${n} {entity}" for n, entity in enumerate(episode.entities, 1))
    return (
        Text(f"{episode.family}, {episode.set} {episode.seed}: {episode.task.text}"),
        Text(f"marked: {marks}\n"),
        table(["worker", "description", "price>", "is", "fails>"], workers, "description"),
        Text(""),
        table(["", "role", "of", "gives"], steps, "gives"),
        Text(f"\nanswer: {as_text(episode.answer)}"),
    )
