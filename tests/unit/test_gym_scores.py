"""What is said of a policy: figures, intervals, stopping regret, tables."""

import random

import msgspec
import pytest

from protocol.actions import Call, Json, Spend, Status
from protocol.decisions import Decision, PlannedCall, PolicySpec, Rejection, Reply, View
from protocol.references import as_text
from trainer.gym import evaluate as scoring
from trainer.gym.episodes import Episode, draw, draws
from trainer.gym.evaluate import evaluate, figures, judged, report, spent_by, stopping
from trainer.gym.kinds import arguments
from trainer.gym.oracle import Oracle
from trainer.gym.play import run
from trainer.gym.pools import Member
from trainer.gym.scores import HIGHER
from trainer.gym.tables import as_json, as_markdown
from trainer.gym.tables import as_text as table
from trainer.gym.teacher import SLOPPY, Teacher
from trainer.gym.workers import ERRORS
from trainer.intervals import bootstrap
from trainer.records import Made, Rollout, Step


def episode_of(role: str = "country.capital", output: Json = "Paris") -> Episode:
    """An episode with two workers of one role, and a stranger."""
    base = draw(1, families=["lookup"])
    need = msgspec.structs.replace(base.plan.needs[0], role=role)
    kinds = (role, role, "country.area")
    return msgspec.structs.replace(
        base,
        members=tuple(Member(kind=kind) for kind in kinds),
        pool=msgspec.structs.replace(base.pool, workers=base.pool.workers[:3]),
        plan=msgspec.structs.replace(base.plan, needs=(need,)),
        outputs=(output,),
    )


def step(
    episode: Episode, *made: tuple[int, Json, Status], cost: int = 100, wrong: bool = False
) -> Step:
    """A round: worker by place, value and status of each call."""
    calls = tuple(
        Made(
            call=Call(
                f"1-{index}",
                episode.pool.workers[worker].name,
                arguments(episode.members[worker].kind, episode.members[worker].kind, "x"),
            ),
            status=status,
            fault="policy" if status == "PARSE_ERR" else "none" if status == "OK" else "worker",
            value=value,
            spend=Spend(cost=cost),
        )
        for index, (worker, value, status) in enumerate(made)
    )
    view = View(run="r", task=episode.task, pool=episode.pool)
    rejection = Rejection("malformed", "no") if wrong else None
    return Step(turn=1, view=view, calls=calls, rejection=rejection)


def rollout(episode: Episode, *steps: Step, answer: str = "Paris", **more: object) -> Rollout:
    fields: dict[str, object] = {"outcome": "finished", "limited_by": ""} | more
    return Rollout(
        run="r",
        group="",
        task=episode.task,
        pool=episode.pool,
        policy=PolicySpec(name="p"),
        steps=steps,
        answer=answer,
        rounds=sum(bool(each.calls) for each in steps),
        spend=Spend(cost=sum(made.spend.cost for each in steps for made in each.calls)),
        **fields,  # type: ignore[arg-type]
    )


# --------------------------------------------------------------------------------------- stopping


def test_rounds_after_the_answer_was_determined_are_regretted() -> None:
    e = episode_of()
    found, other = step(e, (0, "Paris", "OK")), step(e, (2, 643801, "OK"), (1, "Paris", "OK"))
    stop = stopping(e, rollout(e, found, step(e)), right=True)
    assert stop == (True, 0, 0, False)
    stop = stopping(e, rollout(e, found, other, other, step(e)), right=True)
    assert stop == (True, 2, 400, False)


def test_what_is_beside_the_answer_does_not_determine_it() -> None:
    e = episode_of()
    wrongs: list[tuple[int, Json, Status]] = [
        (2, "Paris", "OK"),
        (0, "Lyon", "OK"),
        (0, "Paris", "EXEC_ERR"),
    ]
    for wrong in wrongs:
        steps = (step(e, wrong), step(e, (0, "Paris", "OK")), step(e))
        assert stopping(e, rollout(e, *steps), right=True) == (True, 0, 0, False)
    number = episode_of("country.population", 1)
    both = (step(number, (0, True, "OK")), step(number, (0, 1, "OK")))
    assert stopping(number, rollout(number, *both), right=True).rounds == 0


def test_a_wrong_answer_before_that_is_early_unless_a_limit_made_it() -> None:
    e = episode_of()
    steps = (step(e, (2, 1, "OK")), step(e))
    assert stopping(e, rollout(e, *steps, answer="Lyon"), right=False).early
    assert not stopping(e, rollout(e, *steps), right=True).early
    limited = rollout(e, *steps, answer="Lyon", limited_by="rounds")
    assert not stopping(e, limited, right=False).early
    failed = rollout(e, *steps, answer="", outcome="failed")
    assert not stopping(e, failed, right=False).early
    known = rollout(e, step(e, (0, "Paris", "OK")), answer="Lyon")
    assert not stopping(e, known, right=False).early


def test_an_answer_of_several_outputs_is_determined_by_the_last_of_them() -> None:
    e = next(each for each in draws(range(50), "seen", ["wide"]) if each.plan.listed)
    calm = tuple(msgspec.structs.replace(member, fault_rate=0.0) for member in e.members)
    e = msgspec.structs.replace(e, members=calm)
    (played,) = run([e], Oracle([e]))
    last = played.steps[-2]
    half = msgspec.structs.replace(last, calls=last.calls[:1])
    steps = (half, *played.steps)
    again = msgspec.structs.replace(played, steps=steps)
    assert stopping(e, again, right=True).rounds == 0
    again = msgspec.structs.replace(played, steps=(*played.steps[:-1], half, played.steps[-1]))
    assert stopping(e, again, right=True).rounds == 1


# ---------------------------------------------------------------------------------------- figures


def test_a_call_that_no_worker_could_have_served_is_no_failure_to_recover_from() -> None:
    """A policy that asks for a country nobody knows, of workers that never fail."""
    e = draw(3, "train", ["chain"], shipped=True)

    class Astray:
        spec = PolicySpec(name="astray")

        def decide(self, view: View) -> Reply:
            call = PlannedCall("country", {"name": "Frnace", "fact": "capital"})
            said = Decision(answer="lost") if view.turns else Decision(calls=(call,))
            return Reply(decision=said, version="1")

    (lost,) = judged([e], run([e], Astray()))
    assert [made.status for step in lost.rollout.steps for made in step.calls] == ["EXEC_ERR"]
    assert not lost.faulted


def test_the_figures_of_a_few_rollouts() -> None:
    e = episode_of()
    good = rollout(e, step(e, (0, "Paris", "OK")), step(e))
    failed = step(e, (0, ERRORS[0], "EXEC_ERR"))
    mended = rollout(e, failed, step(e, (1, "Paris", "OK")), step(e))
    bad = rollout(e, step(e, wrong=True), step(e, (0, "no", "PARSE_ERR")), step(e), answer="Lyon")
    lost = msgspec.structs.replace(bad, unscorable="infrastructure")
    found = judged(
        [e] * 4, [good, mended, bad, lost], lambda r: float(r.answer == "Paris"), lambda _: 0.5
    )
    assert len(found) == 3
    of = {each.name: each for each in figures(found, oracle={(e.set, e.seed): 100})}
    assert of["accuracy"].value == pytest.approx(2 / 3)
    assert of["valid"].n == 8
    assert of["valid"].value == pytest.approx(6 / 8)
    assert (of["recovery"].value, of["recovery"].n) == (1.0, 1)
    assert of["rounds"].value == pytest.approx(4 / 3)
    assert of["cost"].value == pytest.approx(400 / 3)
    assert of["early"].value == of["regret_stop"].value == pytest.approx(1 / 3)
    assert of["reward"].value == 0.5
    assert of.keys() >= HIGHER - {"reward"}
    for each in of.values():
        assert each.low <= each.value <= each.high
    said = report(found, policy="p", name="seen", unscorable=1)
    head, _, row = as_markdown([said]).splitlines()
    assert head.startswith("| policy | set | n | unscorable | accuracy |")
    assert row.startswith("| p | seen | 3 | 1 |")
    assert "unscorable" not in as_markdown([msgspec.structs.replace(said, unscorable=0)])
    assert said.total.outcomes["cost"] == {f"{e.set}/{e.seed}": 100.0}
    assert said.total.outcomes["recovery"] == {f"{e.set}/{e.seed}": 1.0}
    assert said.unscorable == 1
    assert said.families.keys() == {"lookup"}


def test_a_policy_is_evaluated_on_one_set() -> None:
    episodes = list(draws(range(30), "seen"))
    oracle = run(episodes, Oracle(episodes))
    spent = spent_by(episodes, oracle)
    best, sloppy = (
        evaluate(episodes, policy, run, oracle=spent, seed=3)
        for policy in (Oracle(episodes), Teacher(episodes, SLOPPY))
    )
    value = {name: best.total.get(name) for name in ("accuracy", "valid", "regret_stop")}
    assert {name: each and each.value for name, each in value.items()} == {
        "accuracy": 1.0,
        "valid": 1.0,
        "regret_stop": 0.0,
    }
    worse = sloppy.total.get("valid")
    assert worse is not None
    assert worse.value < 1.0
    assert best.total.set == "seen"
    again = evaluate(episodes, Oracle(episodes), run, oracle=spent, seed=3)
    assert again == best
    with pytest.raises(ValueError, match="each set apart"):
        evaluate([draw(1, "seen"), draw(1)], Oracle([]), run)
    with pytest.raises(ValueError, match="each set apart"):
        evaluate([], Oracle([]), run)

    text, markdown = table([best, sloppy]), as_markdown([best, sloppy], families=True)
    assert "100.0 [" in text.splitlines()[1]
    assert markdown.splitlines()[1].startswith("| --- |")
    assert len(markdown.splitlines()) == 2 + 2 + len(best.families) + len(sloppy.families)
    assert msgspec.json.decode(as_json([best]), type=list[scoring.Report]) == [best]
    assert as_text(episodes[0].answer)


# -------------------------------------------------------------------------------------- intervals


def test_the_bootstrap_covers_and_is_repeatable() -> None:
    values = [random.Random(5).gauss(10, 2) for _ in range(1)] * 3
    assert bootstrap(values).low == pytest.approx(values[0])
    assert bootstrap([]) == (0.0, 0.0, 0.0)
    covered = 0
    for trial in range(100):
        rng = random.Random(trial)
        sample = [rng.gauss(10, 2) for _ in range(60)]
        found = bootstrap(sample, trial)
        assert found == bootstrap(sample, trial)
        covered += found.low <= 10 <= found.high
    assert 85 <= covered <= 100
