"""Who plays in the gym: the oracle, the imperfect teacher, the baselines; on the real rules."""

import itertools
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import policies, workers
from actors.policies.rules import RulesPolicy
from podium.checks import check_pool
from protocol.actions import Pool, WorkerSpec
from protocol.decisions import Decision, PolicySpec, Reply, Task, View
from protocol.dialects import parse, referable
from protocol.references import as_text
from trainer.fold import fold
from trainer.gym import hosted, keywords, kinds, questions
from trainer.gym.baselines import Random, majority
from trainer.gym.episodes import Episode, draw, draws
from trainer.gym.oracle import Oracle, Spoken, Strongest, serial
from trainer.gym.planners import UNKNOWN
from trainer.gym.play import run, starts
from trainer.gym.pools import Member
from trainer.gym.splits import SETS
from trainer.gym.teacher import SLOPPY, Rates, Teacher, slip_of
from trainer.gym.workers import Host, ToolAdapter, adapters, by_chance, chance, failing
from trainer.records import Rollout
from trainer.rollouts.lane import FastLane


def right(episode: Episode, rollout: Rollout) -> bool:
    """Whether the answer is the plan's."""
    return rollout.answer == as_text(episode.answer)


def stormy(episode: Episode, rate: float) -> Episode:
    """The episode with every worker failing that often."""
    members = tuple(msgspec.structs.replace(m, fault_rate=rate) for m in episode.members)
    return msgspec.structs.replace(episode, members=members)


def unfit(rollout: Rollout) -> int:
    """Calls that were a fault of the policy's, and decisions that could not be followed."""
    calls = sum(made.fault == "policy" for step in rollout.steps for made in step.calls)
    return calls + sum(step.rejection is not None for step in rollout.steps)


# ------------------------------------------------------------------------------------------- oracle


@pytest.mark.parametrize("family", questions.FAMILIES)
def test_the_oracle_is_right_where_much_fails(family: str) -> None:
    episodes = [stormy(each, 0.3) for each in draws(range(12), "seen", [family])]
    rollouts = run(episodes, Oracle(episodes))
    assert all(map(right, episodes, rollouts))
    assert not sum(map(unfit, rollouts))
    statuses = Counter(
        made.status for each in rollouts for step in each.steps for made in step.calls
    )
    assert (statuses["EXEC_ERR"] and statuses["TIMEOUT"]) or family in ("lookup", "code")


def test_the_oracle_is_right_on_every_set_and_takes_no_round_more_than_needed() -> None:
    episodes = [each for name in SETS for each in draws(range(12), name)]
    calm = [stormy(each, 0.0) for each in episodes]
    rollouts = run(calm, Oracle(calm))
    for episode, rollout in zip(calm, rollouts, strict=True):
        assert right(episode, rollout), episode.task.text
        assert rollout.rounds == episode.plan.depth
        assert sum(len(step.calls) for step in rollout.steps) == len(episode.plan.needs)
        assert rollout.spend.cost == sum(
            made.spend.cost for step in rollout.steps for made in step.calls
        )


def test_another_worker_is_asked_where_one_has_failed() -> None:
    spec = draw(0).pool.workers[0]
    one, other = (msgspec.structs.replace(spec, name=name) for name in ("one", "other"))
    base = draw(5, families=["lookup"])
    kind = base.plan.needs[0].role
    episode = msgspec.structs.replace(
        base,
        pool=Pool(
            tuple(
                msgspec.structs.replace(
                    each, parameters=kinds.parameters(kind), reserve=type(each.reserve)(cost=cost)
                )
                for each, cost in ((one, 100), (other, 300))
            )
        ),
        members=(Member(kind=kind, price=100, fault_rate=1.0), Member(kind=kind, price=300)),
    )
    (rollout,) = run([episode], Oracle([episode]))
    assert right(episode, rollout)
    asked = [made.call.worker for step in rollout.steps for made in step.calls]
    assert asked == ["one", "other"]


def test_whom_to_trust_is_taken_from_what_is_shown_unless_it_has_foresight() -> None:
    episodes = [
        each for each in draws(range(300)) if any(m.flaky and not m.warned for m in each.members)
    ]
    blind, seeing = (run(episodes, Oracle(episodes, foresight=f)) for f in (False, True))

    def failed(rollouts: list[Rollout]) -> int:
        return sum(m.status != "OK" for r in rollouts for s in r.steps for m in s.calls)

    assert failed(seeing) < failed(blind)


def test_it_answers_unknown_to_what_it_does_not_know() -> None:
    shown = draw(1)
    view = View(run="r", task=shown.task, pool=shown.pool)
    reply = Oracle([draw(2)]).decide(view)
    assert reply.decision == Decision(answer=UNKNOWN)


def test_the_serial_one_makes_one_call_a_round_and_is_as_right() -> None:
    episodes = [stormy(each, 0.0) for each in draws(range(10), "seen", ["wide"])]
    rollouts = run(episodes, serial(episodes))
    assert all(map(right, episodes, rollouts))
    assert all(len(step.calls) <= 1 for each in rollouts for step in each.steps)
    wide = run(episodes, Oracle(episodes))
    assert sum(r.critical_steps for r in rollouts) > 2 * sum(r.critical_steps for r in wide)


def test_the_strongest_costs_several_times_as_much() -> None:
    episodes = [
        each for each in draws(range(60), "seen") if any(m.kind == "anything" for m in each.members)
    ]
    dear, cheap = run(episodes, Strongest(episodes)), run(episodes, Oracle(episodes))
    assert all(map(right, episodes, dear))
    assert sum(r.spend.cost for r in dear) > 3 * sum(r.spend.cost for r in cheap)


@pytest.mark.parametrize("dialect", ["openai", "hermes", "lists", "compact", "slots"])
def test_its_decisions_can_be_said_in_any_dialect(dialect: str) -> None:
    spec = PolicySpec(name="taught", dialect=dialect)  # type: ignore[arg-type]
    for episode in draws(range(10)):
        view = View(run="r", task=episode.task, pool=episode.pool)
        oracle = Oracle([episode])
        said = Spoken(oracle, spec).decide(view)
        assert said.decision is None
        assert said.prompt
        assert said.version == oracle.version
        meant = parse(spec, said, episode.pool, referable(view))
        own = oracle.decide(view).decision
        assert isinstance(meant, Decision)
        assert own is not None
        assert [(c.worker, c.arguments) for c in meant.calls] == [
            (c.worker, c.arguments) for c in own.calls
        ]


@pytest.mark.parametrize("ahead", [False, True])
def test_it_teaches_small_models_to_point_and_never_to_copy(ahead: bool) -> None:
    episodes = [stormy(each, 0.2) for each in draws(range(25), "seen")]
    taught = PolicySpec(name="taught", dialect="slots")
    rollouts = run(episodes, Spoken(Oracle(episodes, refer=True, ahead=ahead), taught))
    assert all(map(right, episodes, rollouts))
    assert not sum(map(unfit, rollouts))
    plain = run(episodes, Oracle(episodes))
    replies, asked = (sum(len(each.steps) for each in many) for many in (rollouts, plain))
    assert replies < asked if ahead else replies == asked
    for episode, rollout in zip(episodes, rollouts, strict=True):
        said = "".join(step.text for step in rollout.steps)
        assert said
        assert not any(len(entity) > 3 and entity in said for entity in episode.entities)


# ------------------------------------------------------------------------------------------ teacher

UNSTEADY = msgspec.structs.replace(SLOPPY, dear=0, serial=0)


def test_slips_are_marked_and_mended() -> None:
    episodes = list(draws(range(120), "seen"))
    rollouts = run(episodes, Teacher(episodes, UNSTEADY))
    slips = Counter(slip_of(step.version) for each in rollouts for step in each.steps)
    assert slips.keys() == {"", "wrong-worker", "malformed", "superfluous", "early", "late"}
    for episode, rollout in zip(episodes, rollouts, strict=True):
        marked = {slip_of(step.version) for step in rollout.steps}
        assert right(episode, rollout) or "early" in marked
        for step in rollout.steps:
            if any(made.fault == "policy" for made in step.calls):
                assert slip_of(step.version) in {"malformed", "wrong-worker"}
        if unfit(rollout) == 0 and marked == {""}:
            assert right(episode, rollout)


NEVER = Rates(wrong_worker=0, malformed=0, wrong_output=0, superfluous=0, early=0, late=0)


def test_habits_cost_more_than_they_have_to_and_are_not_wrong() -> None:
    episodes = [stormy(each, 0.0) for each in draws(range(60), "seen", ["wide", "lookup"])]

    def played(**habits: float) -> list[Rollout]:
        rates = msgspec.structs.replace(NEVER, **habits)
        rollouts = run(episodes, Teacher(episodes, rates, refer=True))
        assert all(map(right, episodes, rollouts))
        assert not sum(map(unfit, rollouts))
        return rollouts

    well, serially, dearly = played(), played(serial=1.0), played(dear=1.0)
    assert any(len(step.calls) > 1 for each in well for step in each.steps)
    assert {len(step.calls) for each in serially for step in each.steps} == {0, 1}
    dear = 0
    for episode, rollout in zip(episodes, dearly, strict=True):
        asked = {made.call.worker for step in rollout.steps for made in step.calls}
        if any(member.kind == "anything" for member in episode.members):
            assert {episode.member(name).kind for name in asked} == {"anything"}
            dear += 1
    assert dear
    marks = {slip_of(step.version) for each in serially + dearly for step in each.steps}
    assert marks == {"", "serial", "dear"}


def test_without_slips_it_is_the_oracle_and_by_another_seed_it_slips_elsewhere() -> None:
    episodes = list(draws(range(20), "seen"))
    oracle = run(episodes, Oracle(episodes))
    assert [r.answer for r in run(episodes, Teacher(episodes, NEVER))] == [r.answer for r in oracle]

    def marks(seed: int) -> list[str]:
        rollouts = run(episodes, Teacher(episodes, SLOPPY, seed=seed))
        return [step.version for each in rollouts for step in each.steps]

    assert marks(1) == marks(1)
    assert marks(1) != marks(2)


def test_a_wrong_output_is_another_call_s_and_an_answer_by_it_is_refused() -> None:
    episodes = [stormy(each, 0.4) for each in draws(range(80), "seen", ["wide", "arithmetic"])]
    only = msgspec.structs.replace(NEVER, wrong_output=0.5)
    rollouts = run(episodes, Teacher(episodes, only, refer=True))
    oracle = Oracle(episodes, refer=True)
    calls = answers = 0
    for rollout in rollouts:
        for step in rollout.steps:
            if not slip_of(step.version):
                continue
            assert slip_of(step.version) == "wrong-output"
            meant, said = oracle.decision(step.view), step.decision
            assert said is not None
            if not said.calls:
                assert step.rejection is not None
                assert step.rejection.reason == "nothing_to_accept"
                answers += 1
                continue
            assert [each.worker for each in said.calls] == [each.worker for each in meant.calls]
            assert said != meant
            calls += 1
    assert calls > 10
    assert answers > 10
    ended = [pair for pair in zip(episodes, rollouts, strict=True) if not pair[1].limited_by]
    assert len(ended) > len(rollouts) / 2
    assert all(right(*pair) for pair in ended)


def test_who_has_erred_errs_again_more_often() -> None:
    episodes = list(draws(range(120), "seen"))
    rates = msgspec.structs.replace(NEVER, malformed=0.1, again=0.8)
    after: Counter[tuple[bool, bool]] = Counter()
    for rollout in run(episodes, Teacher(episodes, rates)):
        slips = [slip_of(step.version) == "malformed" for step in rollout.steps if step.calls]
        after.update(itertools.pairwise(slips))
    assert after[True, True] > 2 * after[True, False]
    assert after[False, True] < after[False, False] / 4


def test_the_mark_is_read_of_its_own_versions_only() -> None:
    assert slip_of("gym-teacher-1!early") == "early"
    assert slip_of("gym-teacher-1") == slip_of("rules-1") == slip_of("other!early") == ""


# ---------------------------------------------------------------------------------------- baselines


def test_the_baselines_run_and_stand_in_their_order() -> None:
    episodes = list(draws(range(40), "seen"))
    shares = {}
    for policy in (keywords.Rules(), keywords.Router(), Random()):
        rollouts = run(episodes, policy)
        assert all(each.outcome == "finished" or not each.answer for each in rollouts)
        shares[policy.spec.name] = sum(map(right, episodes, rollouts)) / len(episodes)
    assert shares["gym-rules"] > shares["gym-router"] > shares["gym-random"]
    assert shares["gym-rules"] > 0.75


def test_a_rule_that_reads_nothing_says_so() -> None:
    view = View(run="r", task=Task(text="Why?", inputs={"entities": []}), pool=draw(0).pool)
    assert keywords.Rules().decide(view).decision == Decision(answer=UNKNOWN)


def test_the_shipped_rules_play_on_the_shipped_pool() -> None:
    known = [draw(seed, "seen", ["lookup"], shipped=True) for seed in range(40)]
    episodes = [each for each in known if any(spec.adapter for spec in each.pool.workers)]
    rollouts = run(episodes, RulesPolicy())
    pairs = zip(episodes, rollouts, strict=True)
    told = [as_text(each.answer) in there.answer.replace(",", "") for each, there in pairs]
    assert sum(told) > len(told) / 4
    assert all(map(right, episodes, run(episodes, Oracle(episodes))))


def test_the_majority_of_five_is_a_rollout_that_costs_all_of_them() -> None:
    episodes = list(draws(range(25), "seen"))
    five = [run(episodes, Teacher(episodes, SLOPPY, seed=n), job=str(n)) for n in range(5)]
    voted = [majority(group) for group in zip(*five, strict=True)]
    single = sum(map(right, episodes, five[0]))
    assert sum(map(right, episodes, voted)) > single
    for group, one in zip(zip(*five, strict=True), voted, strict=True):
        assert one.spend.cost == sum(each.spend.cost for each in group)
        assert one.rounds == max(each.rounds for each in group)
    with pytest.raises(ValueError, match="nobody"):
        majority([])


# ------------------------------------------------------------------------------------------ workers


@settings(max_examples=50)
@given(st.floats(0, 1), st.integers(0, 10**6))
def test_faults_are_the_same_by_a_seed(rate: float, seed: int) -> None:
    of = (seed, "run", "1-0", 1, "worker")
    assert failing(rate, *of) == failing(rate, *of)
    assert failing(0.0, *of) == ""
    assert failing(1.0, *of) != ""
    assert 0 <= chance(*of) < 1


async def test_what_fails_costs_too_and_a_time_out_takes_its_time() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    seen = set()
    spec = WorkerSpec(name="w", parameters=kinds.parameters("country.capital"))
    member = Member(kind="country.capital", price=7, fault_rate=0.7, latency_ms=100)
    from tests.adapters.case import attempt

    for seed in range(40):
        slept.clear()
        adapter = ToolAdapter(spec, member, seed, sleep)
        outcome = await adapter.run(attempt({"name": "France"}, timeout_s=3))
        seen.add((outcome.status, outcome.fault))
        assert outcome.spend.cost == 7
        assert slept == [3] if outcome.status == "TIMEOUT" else 0.05 <= slept[0] <= 0.15
        assert outcome.value == "Paris" or outcome.status != "OK"
    assert seen == {("OK", "none"), ("EXEC_ERR", "worker"), ("TIMEOUT", "worker")}


async def test_a_tool_that_can_not_do_it_says_why() -> None:
    episode = draw(3, "train", ["chain"], shipped=True)
    from tests.adapters.case import attempt

    country, *_ = adapters(episode)
    outcome = await country.run(attempt({"name": "Frnace", "fact": "capital"}))
    assert (outcome.status, outcome.fault) == ("EXEC_ERR", "worker")
    assert "Did you mean" in outcome.value


# ------------------------------------------------------------------------------------------- hosted


def test_a_deployment_can_host_the_catalogue() -> None:
    pool = hosted.catalogue()
    check_pool(pool)
    there = {spec.name: spec for spec in pool.workers}
    for seed in range(40):
        episode = hosted.at_home(draw(seed))
        check_pool(episode.pool)
        for spec in episode.pool.workers:
            if spec.adapter:
                continue  # of the shipped pool
            home = there[spec.place]
            assert spec.parameters == home.parameters
            assert spec.reserve == home.reserve


def test_runs_reach_the_hosted_workers_under_their_own_names() -> None:
    episodes = [hosted.at_home(draw(seed)) for seed in range(12)]
    episodes = [each for each in episodes if not each.pool.workers[0].adapter]
    there = {spec.place: spec for spec in hosted.catalogue().workers}
    oracle = Oracle(episodes)
    lane = FastLane(
        workers=lambda _, spec: workers.host(there[spec.place]), policies=lambda *_: oracle
    )
    with lane:
        rollouts = [fold(each.log) for each in lane.run(starts(episodes, oracle.spec))]
    assert all(map(right, episodes, rollouts))
    for episode, rollout in zip(episodes, rollouts, strict=True):
        prices = {spec.name: spec.reserve.cost for spec in episode.pool.workers}
        for step in rollout.steps:
            for made in step.calls:
                assert made.spend.cost == prices[made.call.worker] * made.attempts


def test_the_pool_file_is_the_catalogue(tmp_path: object) -> None:
    from pathlib import Path

    from podium import poolfile

    path = Path(str(tmp_path)) / "gym.toml"
    path.write_text(hosted.pool_file())
    assert poolfile.load(path).pool == hosted.catalogue()


def test_conductors_can_make_the_policies() -> None:
    for name in ("hosted:LiveOracle", "hosted:LiveTeacher", "keywords:Rules"):
        policy = policies.find(f"python:trainer.gym.{name}")
        for seed in (7, 9):  # the latter is drawn with the shipped pool, if that is not ruled out
            episode = hosted.at_home(draw(seed, shipped=False))
            view = View(run="r", task=episode.task, pool=episode.pool)
            reply: Reply = policy.decide(view)  # type: ignore[union-attr]
            assert reply.decision is not None
            assert reply.decision.calls


def test_a_host_knows_its_episodes_only() -> None:
    from protocol.commands import Start
    from protocol.errors import NotFound

    known, other = draw(1), draw(2)
    start = Start(run="r", task=other.task, pool=other.pool, policy=PolicySpec(name="x"))
    with pytest.raises(NotFound, match="no episode"):
        Host([known])(start, other.pool.workers[0])
    host = Host([known, other])(start, other.pool.workers[0])
    assert host.spec == other.pool.workers[0]


@pytest.mark.parametrize("alike", [False, True])
async def test_runs_of_one_luck_meet_the_same_faults(alike: bool) -> None:
    from protocol.commands import Start
    from tests.adapters.case import attempt

    async def no_wait(_seconds: float) -> None:
        pass

    episode = stormy(draw(1, "train", ["lookup"]), 0.5)
    host = Host([episode], sleep=no_wait, alike=alike)
    task, pool = episode.task, episode.pool
    spec = next(each for each in pool.workers if kinds.roles_of(episode.member(each.name).kind))
    asked = kinds.arguments(
        episode.member(spec.name).kind, kinds.roles_of(episode.member(spec.name).kind)[0], "France"
    )
    met = set()
    for number in range(12):
        start = Start(run=f"r{number}", task=task, pool=pool, policy=PolicySpec(name="x"))
        adapter = host(start, spec)
        outcomes = [
            await adapter.run(
                msgspec.structs.replace(attempt(asked), run=start.run, call=f"{place}-0")
            )
            for place in range(8)
        ]
        met.add(tuple(by_chance(each.status, each.value) for each in outcomes))
    assert (len(met) == 1) == alike
    assert any(any(each) and not all(each) for each in met)
