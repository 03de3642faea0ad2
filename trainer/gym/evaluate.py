r"""What a policy does on a set: run it, judge it, and say how sure the figures are.

::

    episodes = list(draws(range(500), "unseen-pools"))
    report = evaluate(episodes, Oracle(episodes), run)      # `play.run`
    print(as_text([report]))

=================  ===========================================================================
figure             is, over rollouts that can be scored
=================  ===========================================================================
``accuracy``       share with the right answer
``valid``          share of decisions that could be followed: none rejected, no call whose
                   fault is the policy's
``recovery``       accuracy of those in which a worker failed by chance, see `workers.by_chance`
``rounds``         mean rounds of calls
``cost``           mean price of all attempts, micro-dollars
``critical_steps`` mean of the calls that had to wait for each other, see `replay.critical`
``regret_rounds``  mean rounds that began after the answer was determined
``regret_cost``    mean price of the calls of those rounds, micro-dollars
``early``          share that answered wrongly before the answer was determined
``regret_stop``    mean stopping regret, in times of what the oracle spent, see `stopping`
``reward``         mean reward
=================  ===========================================================================
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from protocol.actions import Json
from protocol.decisions import PolicySpec
from trainer.gym.episodes import Episode
from trainer.gym.kinds import ToolError, meant, value_of
from trainer.gym.scores import Figure, Scores
from trainer.gym.workers import by_chance
from trainer.intervals import Interval, bootstrap, share
from trainer.records import Made, Rollout, Step
from trainer.rewards.channels import accuracy as by_check

Runner = Callable[[Sequence[Episode], Any], Sequence[Rollout]]
"""Gives a rollout of each episode by a policy, in their order."""

Judge = Callable[[Rollout], float | None]
"""What a rollout is worth; None where that can't be said."""

RIGHT: Final = 0.5
"""An accuracy of at least so much is right."""

EARLY_REGRET: Final = 1.0
"""What a wrong early stop regrets: all that the oracle spent, which was to be spent and wasn't."""


class Stop(NamedTuple):
    """How a rollout ended, beside how it should have."""

    determined: bool
    """Whether the answer stood in an output before the policy stopped."""
    rounds: int
    """Rounds that began after that."""
    cost: int
    """Price of their calls, micro-dollars."""
    early: bool
    """Whether it answered before that, and wrongly."""


class Judged(NamedTuple):
    """A rollout with all that the figures are made of."""

    episode: Episode
    rollout: Rollout
    right: bool
    stop: Stop
    decisions: int
    valid: int
    faulted: bool
    """Whether a worker failed by chance."""
    reward: float | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A policy on a set: all in all, and by family."""

    total: Scores
    families: dict[str, Scores]
    unscorable: int
    """Rollouts that are in no figure: nothing can be said of the policy by them."""


def stopping(episode: Episode, rollout: Rollout, *, right: bool) -> Stop:
    """How well a rollout stopped.

    The answer is determined as soon as each need of the plan that it is made of has its output,
    from a worker that was asked for just that role. Every round after that is regretted, with the
    price of its calls. A policy that answers wrongly before has stopped too early. One that answers
    rightly before, or whose run was ended by its budget, regrets nothing here.
    """
    missing, rounds, cost = set(episode.plan.finals), 0, 0
    for step in rollout.steps:
        if not missing and step.calls:
            rounds += 1
            cost += sum(made.spend.cost for made in step.calls)
        for made in step.calls:
            missing -= _gives(episode, made, missing)
    known = not missing
    stopped = rollout.outcome == "finished" and not rollout.limited_by
    return Stop(known, rounds, cost, early=stopped and not known and not right)


def _gives(episode: Episode, made: Made, missing: set[int]) -> set[int]:
    """Which of some needs a call had the output of, asked for their role."""
    if made.status != "OK" or not missing:
        return set()
    try:
        role, _ = meant(episode.member(made.call.worker).kind, made.call.arguments)
    except (KeyError, ToolError):
        return set()
    return {
        number
        for number in missing
        if episode.plan.needs[number - 1].role == role
        and _same(value_of(made.value), episode.outputs[number - 1])
    }


def _same(value: Json, wanted: Json) -> bool:
    return type(value) is type(wanted) and bool(value == wanted)


def judged(
    episodes: Sequence[Episode],
    rollouts: Sequence[Rollout],
    accuracy: Judge = by_check,
    reward: Judge | None = None,
) -> list[Judged]:
    """The rollouts that can be scored, each with its episode.

    Args:
        episodes: What was played.
        rollouts: What came of each.
        accuracy: Says how right a rollout is; by the task's check if nothing is said.
        reward: Says what it is worth; None for no such figure.

    Raises:
        ValueError: There are not as many rollouts as episodes.
    """
    found = []
    for episode, rollout in zip(episodes, rollouts, strict=True):
        if rollout.unscorable:
            continue
        right = (accuracy(rollout) or 0.0) >= RIGHT
        found.append(
            Judged(
                episode,
                rollout,
                right,
                stopping(episode, rollout, right=right),
                len(rollout.steps),
                sum(not step.failed for step in rollout.steps),
                any(map(_faulted, rollout.steps)),
                None if reward is None else reward(rollout),
            )
        )
    return found


def _faulted(step: Step) -> bool:
    return any(by_chance(made.status, made.value) for made in step.calls)


def figures(
    of: Sequence[Judged], seed: int = 0, oracle: Mapping[tuple[str, int], int] | None = None
) -> tuple[Figure, ...]:
    """The figures of some rollouts.

    Args:
        of: The rollouts.
        seed: Of the bootstrap.
        oracle: What the oracle spent in each episode, micro-dollars, by set and seed; without it
            there is no ``regret_stop``.
    """
    hurt = [each for each in of if each.faulted]
    decisions = sum(each.decisions for each in of)
    made = [
        _share("accuracy", [each.right for each in of]),
        _figure("valid", share(sum(each.valid for each in of), decisions), decisions),
        _share("recovery", [each.right for each in hurt]),
        _mean("rounds", [each.rollout.rounds for each in of], seed, "rounds"),
        _mean("cost", [each.rollout.spend.cost for each in of], seed, "microdollars"),
        _mean("critical_steps", [each.rollout.critical_steps for each in of], seed, "calls"),
        _mean("regret_rounds", [each.stop.rounds for each in of], seed, "rounds"),
        _mean("regret_cost", [each.stop.cost for each in of], seed, "microdollars"),
        _share("early", [each.stop.early for each in of]),
    ]
    if oracle is not None:
        regret = [_regret(each, oracle) for each in of]
        made.append(_mean("regret_stop", [r for r in regret if r is not None], seed))
    rewards = [each.reward for each in of if each.reward is not None]
    if rewards:
        made.append(_mean("reward", rewards, seed))
    return tuple(made)


def outcomes(of: Iterable[Judged]) -> dict[str, dict[str, float]]:
    """The figures of each episode by itself, by its set and seed: what a gate makes pairs of."""
    found: dict[str, dict[str, float]] = {}
    for each in of:
        own: dict[str, float | None] = {
            "accuracy": float(each.right),
            "valid": each.valid / each.decisions if each.decisions else None,
            "recovery": float(each.right) if each.faulted else None,
            "rounds": float(each.rollout.rounds),
            "cost": float(each.rollout.spend.cost),
            "critical_steps": float(each.rollout.critical_steps),
            "reward": each.reward,
        }
        for name, value in own.items():
            if value is not None:
                episode = f"{each.episode.set}/{each.episode.seed}"
                found.setdefault(name, {})[episode] = value
    return found


def _regret(each: Judged, oracle: Mapping[tuple[str, int], int]) -> float | None:
    spent = oracle.get((each.episode.set, each.episode.seed), 0)
    if not spent:  # nothing to be a share of
        return None
    return EARLY_REGRET if each.stop.early else each.stop.cost / spent


def _share(name: str, hits: Sequence[bool]) -> Figure:
    return _figure(name, share(sum(hits), len(hits)), len(hits))


def _mean(name: str, values: Sequence[float], seed: int, unit: str = "") -> Figure:
    drawn = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big")
    return _figure(name, bootstrap(values, drawn), len(values), unit)


def _figure(name: str, interval: Interval, n: int, unit: str = "") -> Figure:
    value, low, high = interval
    return Figure(name=name, value=value, low=low, high=high, n=n, unit=unit)


def spent_by(
    episodes: Sequence[Episode], rollouts: Iterable[Rollout]
) -> dict[tuple[str, int], int]:
    """What each episode has cost, micro-dollars; of the oracle's rollouts, for `figures`."""
    pairs = zip(episodes, rollouts, strict=True)
    return {(episode.set, episode.seed): each.spend.cost for episode, each in pairs}


def report(
    of: Sequence[Judged],
    *,
    policy: str,
    name: str,
    version: str = "",
    seed: int = 0,
    unscorable: int = 0,
    oracle: Mapping[tuple[str, int], int] | None = None,
) -> Report:
    """The figures of a policy's rollouts on the set of that name: all in all, and by family."""

    def scores(some: Sequence[Judged]) -> Scores:
        return Scores(
            policy=policy,
            version=version,
            set=name,
            seed=seed,
            figures=figures(some, seed, oracle),
            outcomes=outcomes(some),
        )

    families = dict.fromkeys(each.episode.family for each in of)
    return Report(
        total=scores(of),
        families={
            family: scores([each for each in of if each.episode.family == family])
            for family in sorted(families)
        },
        unscorable=unscorable,
    )


def evaluate(
    episodes: Sequence[Episode],
    policy: Any,
    run: Runner,
    *,
    accuracy: Judge = by_check,
    reward: Judge | None = None,
    version: str = "",
    seed: int = 0,
    oracle: Mapping[tuple[str, int], int] | None = None,
) -> Report:
    """Run a policy on some episodes of one set, and report.

    Args:
        episodes: Of one set.
        policy: What the runner takes: a policy, or the spec of one.
        run: Runs episodes.
        accuracy: See `judged`.
        reward: See `judged`.
        version: Of the policy.
        seed: Of the intervals.
        oracle: See `figures`.

    Raises:
        ValueError: No episodes, or of several sets.
    """
    sets = {episode.set for episode in episodes}
    if len(sets) != 1:
        raise ValueError(f"episodes of {len(sets)} sets: evaluate each set apart")
    rollouts = run(episodes, policy)
    scored = judged(episodes, rollouts, accuracy, reward)
    return report(
        scored,
        policy=policy.name if isinstance(policy, PolicySpec) else policy.spec.name,
        name=sets.pop(),
        version=version,
        seed=seed,
        unscorable=len(rollouts) - len(scored),
        oracle=oracle,
    )
