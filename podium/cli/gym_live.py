"""`podium gym live`: a standing deployment plays the gym, and every run of it is in the log."""

import secrets
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from podium.cli.gym import Count, Families, Family, Set, Small, check_name
from podium.cli.options import COMMON, Common
from podium.cli.output import Output
from podium.cli.world import current
from podium.render_text import count as counted
from protocol.errors import InvalidData, Usage

if TYPE_CHECKING:
    from podium.live_training import Rollouts
    from protocol.decisions import PolicySpec
    from trainer.gym.episodes import Episode
    from trainer.rollouts.source import Group

KEY_BYTES: Final = 4
"""Of a job's name that nobody has given: 32 bits."""


def live(
    *,
    policy: Annotated[
        str, Parameter(help="Who plays: python:MODULE:CLASS, local:FOLDER; its own by default.")
    ] = "",
    small: Small = False,
    of: Set = "seen",
    count: Count = 100,
    seed: int = 0,
    family: Family = "",
    families: Families = False,
    temperature: Annotated[
        float | None, Parameter(help="Of a local model; 0 for what it holds most likely.")
    ] = None,
    job: Annotated[
        str, Parameter(help="Its name: given again, it goes on. Else it is a job of its own.")
    ] = "",
    common: Common = COMMON,
) -> int:
    """Have a standing deployment of the gym's workers play, and say how well it went.

    Its runs are in the log as all others: `podium dataset build` finds them.
    """
    from podium.live_training import Rollouts
    from podium.render_rich import table
    from trainer.gym.evaluate import judged, report
    from trainer.gym.questions import FAMILIES
    from trainer.gym.splits import SETS
    from trainer.gym.tables import rows

    check_name(of, "set", SETS)
    if family:
        check_name(family, "family", FAMILIES)
    if count < 1:
        raise Usage(f"{count} episodes say nothing", hint="Give --count 1 or more.")
    output = Output(common.json)
    job = job or f"gym-{secrets.token_hex(KEY_BYTES)}"
    episodes = _episodes(range(seed, seed + count), of, family, small)
    with Rollouts(current().deployments, common.load().config) as rollouts:
        spec = _policy(rollouts, policy, temperature)
        output.say(f"{job}: {counted(count, 'run')} by {spec.name}")
        groups = _played(rollouts, episodes, spec, job, output.counting(count, "runs"))
    pairs = zip(episodes, groups, strict=True)
    played = [(each, group.rollouts[0].rollout) for each, group in pairs if group.rollouts]
    if not played:
        raise InvalidData(f"none of the runs of {job} has ended", hint="podium status")
    scored = judged([each for each, _ in played], [each for _, each in played])
    found = report(
        scored,
        policy=spec.name,
        name=of,
        unscorable=count - len(scored),
    )
    versions = Counter("|".join(group.versions) or "none" for group in groups)
    head, *body = rows([found], families=families)
    output.read(
        [{"job": job, "versions": dict(sorted(versions.items())), **msgspec.to_builtins(found)}],
        table(head, body, head[0]),
        counts={"episodes": count},
    )
    told = ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))
    output.hint(f"runs by version: {told}")
    whys = Counter(rollout.unscorable for _, rollout in played if rollout.unscorable)
    for why, number in whys.most_common():
        output.hint(f"{counted(number, 'run')} say nothing of the policy: {why}")
    return 0


def _episodes(seeds: range, of: str, family: str, small: bool) -> "list[Episode]":
    from trainer.gym import small as little
    from trainer.gym.episodes import draw
    from trainer.gym.hosted import at_home

    if small and family:
        raise Usage("the gym in small has one family", hint="leave --family out")
    families = (family,) if family else ()
    drawn = (
        little.draw(each, of) if small else draw(each, of, families, shipped=False)
        for each in seeds
    )
    return [at_home(each) for each in drawn]


def _policy(rollouts: "Rollouts", name: str, temperature: float | None) -> "PolicySpec":
    from podium.policyfile import chosen

    standing = rollouts.standing
    spec = chosen(name, standing.policy, standing.spec)
    if temperature is None:
        return spec
    if "folder" not in spec.options:
        raise Usage("--temperature is of a local model", hint="leave it out")
    options: dict[str, Any] = {**spec.options, "temperature": temperature}
    return msgspec.structs.replace(spec, options=options)


def _played(
    rollouts: "Rollouts",
    episodes: "list[Episode]",
    spec: "PolicySpec",
    job: str,
    tell: Callable[[int], None],
) -> "list[Group]":
    """What came of each episode, in their order."""
    from trainer.rollouts.source import Ask, gathered
    from trainer.training.spec import Live

    source = rollouts.source(job, Live())
    asks = [
        Ask(
            key=f"{each.set}/{each.seed}",
            task=each.task,
            pool=each.pool,
            policy=spec,
            budget=each.budget,
            members=1,
        )
        for each in episodes
    ]
    return gathered(source, asks, rollouts.alive, tell)
