"""Rows: every sampled token once, each under the prefix that it was drawn under."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.sampled import unpack_floats, unpack_ids
from tests.logs import log_of
from tests.trees import rollout, step
from tests.unit.test_fold import sampled_run, several
from tests.unit.test_forks import forked, joined
from tests.unit.test_run_properties import HISTORIES, STARTS, History
from trainer.fold import fold
from trainer.records import Rollout, Step
from trainer.rows import Row, rows


def trained(row: Row) -> list[int]:
    """The ids that a row trains."""
    return [int(each) for each in row.ids[row.sampled]]


def eligible(found: Rollout) -> list[Step]:
    return [each for each in found.steps if each.own and each.sampled is not None]


def check(found: Rollout, made: list[Row]) -> None:
    """The invariants of rows."""
    steps = {each.turn: each for each in eligible(found)}
    assert sorted(turn for row in made for turn in row.turns) == sorted(steps), "each step once"
    assert sum(int(row.sampled.sum()) for row in made) == sum(
        len(each.output) // 4 for each in steps.values()
    )
    for place, row in enumerate(made):
        assert (row.rollout, row.group, row.segment) == (found.run, found.group, place)
        assert len(row.ids) == len(row.sampled) == len(row.logprobs)
        assert [each.dtype.name for each in (row.ids, row.logprobs)] == ["int32", "float32"]
        owned = np.zeros(len(row.ids), dtype=bool)
        for turn, start in zip(row.turns, row.starts, strict=True):
            each = steps[turn]
            output = unpack_ids(each.output)
            end = start + len(output)
            assert tuple(row.ids[:start]) == unpack_ids(each.prompt), "under its own prefix"
            assert tuple(row.ids[start:end]) == output
            assert tuple(row.logprobs[start:end]) == unpack_floats(each.logprobs)
            assert not owned[start:end].any(), "no token twice"
            owned[start:end] = True
            assert each.sampled is not None
            drawn = (each.sampled.version or each.version, each.sampled.temperature)
            assert (row.version, row.temperature) == drawn
        assert (owned == row.sampled).all()
        assert not row.logprobs[~row.sampled].any()


@several
@given(STARTS, HISTORIES)
def test_of_any_call_tree_every_token_is_trained_once_and_under_its_prefix(
    start: Any, history: History
) -> None:
    found = fold(log_of(sampled_run(start, history)))
    check(found, rows(found))


TOKENS = st.lists(st.integers(1, 3), max_size=3)


@given(
    st.lists(
        st.tuples(st.integers(0, 5), TOKENS, TOKENS, st.sampled_from(["v1", "v1", "v2"])),
        max_size=8,
    )
)
def test_of_any_prompts_that_go_on_from_one_another_or_do_not(
    made: list[tuple[int, list[int], list[int], str]],
) -> None:
    contexts: list[list[int]] = [[]]
    steps = []
    for turn, (back, delta, output, version) in enumerate(made, 1):
        prompt = contexts[back % len(contexts)] + delta
        contexts.append(prompt + output)
        steps.append(step(turn, prompt, output, version=version))
    found = rollout(*steps)
    check(found, rows(found))


def test_prompts_that_go_on_from_one_another_are_one_row() -> None:
    found = rows(rollout(step(1, [1, 2], [3, 4]), step(2, [1, 2, 3, 4, 5], [6])))
    (row,) = found
    assert row.ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert row.sampled.tolist() == [False, False, True, True, False, True]
    assert row.logprobs.tolist() == [0, 0, -0.25, -0.5, 0, -0.25]
    assert (row.turns, row.starts) == ((1, 2), (2, 5))


def test_a_token_that_was_rewritten_out_of_its_context_is_trained_where_it_was() -> None:
    """ART's issue 883: token 3 must not be trained under the prefix of the second reply."""
    first, second = rows(rollout(step(1, [1], [2, 3]), step(2, [1, 3, 4], [5])))
    assert (first.ids.tolist(), trained(first)) == ([1, 2, 3], [2, 3])
    assert (second.ids.tolist(), trained(second)) == ([1, 3, 4, 5], [5])


def test_a_reply_goes_on_in_the_row_whose_context_it_has() -> None:
    branch = [step(1, [1], [2]), step(2, [7], [8]), step(3, [1, 2, 3], [4])]
    first, second = rows(rollout(*branch))
    assert (first.turns, trained(first)) == ((1, 3), [2, 4])
    assert (second.turns, trained(second)) == ((2,), [8])


@pytest.mark.parametrize(
    "changed", [{"version": "v2"}, {"temperature": 0.5}, {"tokenizer": "t"}, {"template": "t"}]
)
def test_what_was_drawn_otherwise_is_a_row_of_its_own(changed: dict[str, Any]) -> None:
    first, second = rows(rollout(step(1, [1], [2]), step(2, [1, 2], [3], **changed)))
    assert second.ids.tolist() == [1, 2, 3]
    assert (trained(first), trained(second)) == ([2], [3])


def test_nothing_said_nothing_added_and_nothing_known_are_no_errors() -> None:
    (row,) = rows(rollout(step(1, [1], []), step(2, [1], [2]), step(3, [1, 2], [3])))
    assert (row.turns, row.starts, trained(row)) == ((1, 2, 3), (1, 1, 2), [2, 3])
    (masked,) = rows(rollout(step(1, [1, 2], [])))
    assert not masked.sampled.any()
    (empty,) = rows(rollout(step(1, [], [])))
    assert empty.ids.shape == (0,)
    assert rows(rollout(step(1), step(2))) == [], "no tokens are known"


def test_log_probabilities_that_are_not_known_are_nan() -> None:
    said = step(1, [1], [2, 3])
    lost = said.__class__(
        **{**{n: getattr(said, n) for n in said.__struct_fields__}, "logprobs": b""}
    )
    (row,) = rows(rollout(lost))
    assert np.isnan(row.logprobs[row.sampled]).all()
    assert row.logprobs[0] == 0


def test_a_rejected_reply_is_trained_and_what_a_fork_shares_is_not() -> None:
    shared = step(1, [1], [2], own=False)
    bad = step(2, [1, 2, 3], [4], rejected=True)
    (row,) = rows(rollout(shared, bad))
    assert trained(row) == [4]


@several
@given(STARTS, HISTORIES, st.integers(1, 10**6))
def test_a_fork_never_trains_what_its_origin_has(start: Any, history: History, pick: int) -> None:
    world = sampled_run(start, history)
    log = log_of(world)
    at = pick % len(world.events) + 1
    if log.state(at).phase == "ended":
        return
    found = fold(joined(forked(log, at), log))
    assert rows(found) == []
