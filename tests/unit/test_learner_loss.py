"""The loss: what it is equal to, what changes it, what it refuses."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import InvalidData, Usage
from tests import models
from tests.learners import SIZE, TOKEN, example, gradient, learner, ragged, weights
from trainer.learner.options import Objective
from trainer.learner.weighing import PARTS, weigh


def near(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, atol=2e-6, rtol=1e-4)


def logprobs(of: Any, ids: Any, temperature: float = 1.0) -> torch.Tensor:
    """Of each token of a series from the second on, by the model's own call."""
    read = torch.as_tensor(np.asarray(ids), dtype=torch.long)[None]
    logits = of.model(input_ids=read).logits[0, :-1].float() / temperature
    found: torch.Tensor = logits.log_softmax(-1).gather(-1, read[0, 1:, None])[:, 0]
    return found


def test_ce_is_the_loss_of_transformers() -> None:
    mine = learner()
    (one,) = ragged([20])
    ids = torch.as_tensor(one.ids, dtype=torch.long)[None]
    labels = torch.where(torch.as_tensor(one.ce)[None] > 0, ids, -100)
    wanted = mine.model(input_ids=ids, labels=labels).loss
    values = mine.evaluate([one])
    assert values["loss"] == pytest.approx(wanted.item(), abs=1e-6)
    assert values["nll"] == pytest.approx(wanted.item(), abs=1e-6)


def test_parts_add_up_whether_or_not_they_share_tokens() -> None:
    ids = list(range(12))
    logs = [-5.2, -5.0, -4.8]
    imitated = example(ids, ce=(4, 5, 6))
    apart = example(ids, pg=(7, 8, 9), logprobs=logs)
    shared = example(ids, pg=(4, 5, 6), logprobs=logs)
    both = [
        example(ids, ce=(4, 5, 6), pg=(7, 8, 9), logprobs=logs),
        example(ids, ce=(4, 5, 6), pg=(4, 5, 6), logprobs=logs),
    ]
    for other, mixed in zip((apart, shared), both, strict=True):
        alone = gradient(learner(), [imitated]) + gradient(learner(), [other])
        assert near(gradient(learner(), [mixed]), alone)


@pytest.mark.parametrize("part", PARTS)
def test_a_batch_of_one_part_alone_has_a_gradient(part: str) -> None:
    mine = learner(reference=True)
    mine.step(ragged([9]))  # else the reference is what is trained, and its divergence is nothing
    given: dict[str, Any] = {part: (3, 4)}
    values = mine.step([example(range(9), **given)]).values
    assert values["grad_norm"] > 0
    assert f"loss_{part}" in values
    assert {f"loss_{other}" for other in PARTS if other != part}.isdisjoint(values)


def test_shifted_log_probabilities_change_the_update() -> None:
    ids, places = list(range(10)), (5, 6, 7)
    for objective in (TOKEN, Objective(per="token", ratio="decoupled", correction="truncate")):
        found = [
            gradient(learner(objective), [example(ids, pg=places, logprobs=[shift] * 3)])
            for shift in (-5.4, -5.5)
        ]
        assert not near(*found)


def test_ppo_clips_a_ratio_only_where_that_bounds_the_gain() -> None:
    """Of the four corners of PPO, two have no gradient."""
    mine = learner()
    ids, place = [1, 2, 3, 4], 3
    known = logprobs(mine, ids)[place - 1].item()
    moves = {}
    for far in (-0.5, 0.5):
        for advantage in (-1.0, 1.0):
            one = example(ids, pg=(place,), advantage=advantage, logprobs=[known - far])
            moves[far, advantage] = float(gradient(mine, [one]).abs().max())
    assert moves[-0.5, -1.0] == moves[0.5, 1.0] == 0
    assert moves[-0.5, 1.0] > 0
    assert moves[0.5, -1.0] > 0


def test_the_surrogate_is_what_it_is_said_to_be() -> None:
    mine = learner(Objective(per="token", clip_low=0.1, clip_high=0.3))
    ids = list(range(8))
    theta = logprobs(mine, ids)[3:].detach()
    logs = (theta + torch.tensor([0.5, 0.05, -0.2, -0.6])).tolist()
    values = mine.evaluate([example(ids, pg=(4, 5, 6, 7), advantage=-2.0, logprobs=logs)])
    ratio = (theta - torch.tensor(logs)).exp()
    least = torch.minimum(ratio * -2, ratio.clamp(0.9, 1.3) * -2)
    assert values["loss_pg"] == pytest.approx(-least.mean().item(), abs=1e-5)
    assert values["ratio"] == pytest.approx(ratio.mean().item(), abs=1e-5)
    assert values["clip_low_frac"] == 0.25
    assert values["clip_high_frac"] == 0
    divergence = (ratio - 1 - ratio.log()).mean().item()
    assert values["kl_behaviour"] == pytest.approx(divergence, abs=1e-5)
    size = ratio.sum() ** 2 / ratio.square().sum()
    assert values["ess"] == pytest.approx(size.item(), rel=1e-4)


@pytest.mark.parametrize(
    ("correction", "level", "wanted"),
    [
        ("truncate", "token", (1.5, 0.8)),
        ("mask", "token", (0.0, 0.8)),
        ("truncate", "sequence", (1.5, 1.5)),
        ("mask", "sequence", (0.0, 0.0)),
    ],
)
def test_decoupled_weighs_by_a_cut_or_masked_ratio_to_the_behaviour(
    correction: Any, level: Any, wanted: tuple[float, float]
) -> None:
    """One token is 2.2 times as likely as it was, the other 0.8; both together 1.76 times."""
    mine = learner(
        Objective(per="token", ratio="decoupled", correction=correction, level=level, cap=1.5)
    )
    ids = list(range(6))
    theta = logprobs(mine, ids)[3:].detach()
    logs = (theta - torch.tensor([2.2, 0.8]).log()).tolist()
    values = mine.evaluate([example(ids, pg=(4, 5), logprobs=logs)])
    assert values["loss_pg"] == pytest.approx(-sum(wanted) / 2, abs=1e-5)
    assert values["masked_frac"] == sum(each == 0 for each in wanted) / 2
    assert values["ratio"] == pytest.approx(1, abs=1e-6)


def test_decoupled_clips_against_the_weights_that_several_updates_began_with() -> None:
    mine = learner(Objective(per="token", ratio="decoupled"))
    batch = ragged([10, 14], pg=True)
    old = mine.known(batch)
    first = mine.step(batch, old=old).values
    second = mine.step(batch, old=old).values
    assert first["ratio"] == pytest.approx(1, abs=1e-6)
    assert abs(second["ratio"] - 1) > 1e-4


def test_the_gate_leaves_out_what_is_bad_and_has_grown_unlikely() -> None:
    mine = learner(Objective(per="token", gate=0.5))
    ids = list(range(6))
    theta = logprobs(mine, ids)[3:].detach()
    far, near = ((theta + drift).tolist() for drift in (1.0, 0.1))
    masked = {
        (advantage, name): mine.evaluate(
            [example(ids, pg=(4, 5), advantage=advantage, logprobs=logs)]
        )["masked_frac"]
        for advantage in (-1.0, 1.0)
        for name, logs in (("far", far), ("near", near))
    }
    assert masked == {(-1.0, "far"): 1, (-1.0, "near"): 0, (1.0, "far"): 0, (1.0, "near"): 0}


def test_a_step_with_too_small_an_effective_sample_is_refused() -> None:
    mine = learner(Objective(per="token", min_ess_frac=0.9))
    before = weights(mine)
    ids = list(range(10))
    theta = logprobs(mine, ids)[3:].detach()
    logs = (theta + torch.tensor([-2.0, 1.0, 2.0, 0.0, 0.0, 1.0])).tolist()
    stepped = mine.step([example(ids, pg=range(4, 10), logprobs=logs)])
    assert "effective sample size" in stepped.refused
    assert (stepped.step, stepped.updates) == (1, 0)
    assert all(torch.equal(each, before[name]) for name, each in weights(mine).items())
    assert not mine.step([example(ids, pg=range(4, 10), logprobs=theta.tolist())]).refused


def test_a_log_ratio_however_large_gives_numbers() -> None:
    mine = learner()
    values = mine.step([example(range(6), pg=(4, 5), advantage=-1, logprobs=[-3e4, 3e4])]).values
    assert np.isfinite(list(values.values())).all()


def test_the_divergence_from_the_reference_is_k3() -> None:
    mine = learner(reference=True)
    for _ in range(3):
        mine.step(ragged([12, 9]))
    ids = list(range(9))
    one = example(ids, ref_kl=(5, 6, 7))
    gap = logprobs(learner(), ids)[4:7] - logprobs(mine, ids)[4:7]
    wanted = (gap.exp() - gap - 1).mean().item()
    values = mine.evaluate([one])
    assert values["ref_kl"] == pytest.approx(wanted, abs=1e-5)
    assert values["loss"] == pytest.approx(wanted, abs=1e-5)
    with pytest.raises(InvalidData, match="no reference model"):
        learner().step([one])


def test_the_entropy_bonus_makes_choices_more_even() -> None:
    ids = list(range(8))
    found = []
    for bonus in (0.0, 5.0):
        mine = learner(Objective(per="token", entropy=bonus))
        one = example(ids, pg=(5, 6, 7), advantage=0.0, logprobs=[-5.0] * 3)
        before = mine.step([one]).values["entropy"]
        found.append(mine.evaluate([one])["entropy"] - before)
    assert found[0] == pytest.approx(0, abs=1e-5)
    assert found[1] > 1e-3


def test_the_loss_that_is_told_is_what_was_minimised_with_its_bonus() -> None:
    ids = list(range(8))
    plain, mine = (learner(Objective(per="token", entropy=bonus)) for bonus in (0.0, 0.5))
    one = example(ids, ce=(3,), pg=(5, 6, 7), advantage=0.3, logprobs=[-5.0] * 3)
    wanted, values = plain.evaluate([one]), mine.evaluate([one])
    bonus = 0.5 * wanted["entropy"]
    assert values["loss_entropy"] == pytest.approx(-bonus, abs=1e-5)
    assert values["loss"] == pytest.approx(wanted["loss"] - bonus, abs=1e-5)
    assert "loss_entropy" not in wanted


def test_a_temperature_is_applied_as_it_was_when_the_token_was_drawn() -> None:
    mine = learner()
    ids = list(range(9))
    logs = logprobs(mine, ids, 0.7)[4:].tolist()
    warm = mine.evaluate([example(ids, pg=range(5, 9), logprobs=logs, temperature=0.7)])
    assert warm["ratio"] == pytest.approx(1, abs=1e-5)
    assert warm["kl_behaviour"] == pytest.approx(0, abs=1e-6)
    assert mine.evaluate([example(ids, pg=range(5, 9), logprobs=logs)])["kl_behaviour"] > 1e-3


def test_imitation_has_no_temperature() -> None:
    mine = learner()
    ids = list(range(9))
    wanted = mine.evaluate([example(ids, ce=(5, 6))])["nll"]
    mixed = example(ids, ce=(5, 6), pg=(6, 7), temperature=0.5)
    assert mine.evaluate([mixed])["nll"] == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temperature": 0.0}, "temperature 0"),
        ({"top_p": 0.9}, "top_p 0.9"),
        ({"top_k": 20}, "top_k 20"),
    ],
)
def test_what_was_drawn_otherwise_is_refused(given: dict[str, Any], message: str) -> None:
    one = example(range(9), pg=(5, 6), rollout="run-7", **given)
    with pytest.raises(InvalidData, match=f"rollout run-7 was drawn .*{message}"):
        learner().step([one])
    learner().step([example(range(9), ce=(5, 6), **given)])  # imitation is of tokens alone


def test_an_unknown_log_probability_is_refused_or_counts_as_a_ratio_of_one() -> None:
    one = example(range(9), pg=(5, 6), logprobs=[float("nan"), -5.0])
    with pytest.raises(InvalidData, match=r"1 tokens .* no log-probability"):
        learner().step([one])
    mine = learner(Objective(per="token", missing="one"))
    known = logprobs(mine, one.ids)[4:6].tolist()
    values = mine.step([example(range(9), pg=(5, 6), logprobs=[float("nan"), known[1]])]).values
    assert values["missing"] == 1
    assert values["ratio"] == pytest.approx(1, abs=1e-5)
    assert values["grad_norm"] > 0


def test_nothing_to_train_changes_nothing() -> None:
    mine = learner()
    before = weights(mine)
    for batch in ([], [example(range(9))], [example([])], [example([5])]):
        assert mine.step(batch).refused == "nothing in it is trained"
    assert all(torch.equal(each, before[name]) for name, each in weights(mine).items())
    assert mine.step([example(range(9)), example(range(9), ce=(3,))]).values["idle"] == 1


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (example(range(9), ce=(0, 1)), "first token has a weight"),
        (example([1, SIZE], ce=(1,)), "ids of tokens that the model does not have"),
        (example([1] * (models.CONTEXT + 1), ce=(5,)), f"room for {models.CONTEXT}"),
        (example([1, 2, 3], pg=(2,), advantage=float("nan")), "no numbers"),
    ],
)
def test_what_can_not_be_learned_from_is_refused_by_name(one: Any, message: str) -> None:
    mine = learner()
    before = weights(mine)
    with pytest.raises(InvalidData, match=message):
        mine.step([example(range(5), ce=(2,)), one])
    assert mine.steps == 0
    assert all(torch.equal(each, before[name]) for name, each in weights(mine).items())


@pytest.mark.parametrize(
    "given",
    [
        {"per": "constant"},
        {"per": "token", "tokens": 10.0},
        {"per": "token", "correction": "mask"},
        {"per": "token", "clip_low": 1.5},
    ],
)
def test_options_that_contradict_each_other_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(Usage):
        Objective(**given)


@given(
    lengths=st.lists(st.integers(2, 9), min_size=1, max_size=6),
    runs=st.lists(st.sampled_from(("a", "b", "c")), min_size=6, max_size=6),
)
@settings(max_examples=40, deadline=None)
def test_what_counts_alike_has_the_same_sum_of_weights(lengths: list[int], runs: list[str]) -> None:
    """Runs a and b are one group, c is another."""
    batch = [
        example(range(length), ce=range(1, length), rollout=run, group="g" if run < "c" else "h")
        for length, run in zip(lengths, runs, strict=False)
    ]

    def shares(objective: Objective, key: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for each in weigh(batch, objective).weighed:
            name = getattr(each.example, key)
            found[name] = found.get(name, 0) + float(each.ce.sum())
        return found

    count = sum(length - 1 for length in lengths)
    for each in weigh(batch, TOKEN).weighed:
        assert each.ce == pytest.approx(1 / count)
    by_run = shares(Objective(per="rollout"), "rollout")
    assert list(by_run.values()) == pytest.approx([1 / len(by_run)] * len(by_run))
    by_group = shares(Objective(per="group"), "group")
    assert list(by_group.values()) == pytest.approx([1 / len(by_group)] * len(by_group))
    for each in weigh(batch, Objective(per="constant", tokens=8)).weighed:
        assert each.ce == pytest.approx(1 / (8 * len(by_run)))
