"""Which version answers: what was said, folded; whatever is said, in whatever order."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import model_versions as rules
from protocol.errors import Conflict, PodiumError, Usage
from protocol.model_versions import BASE, EMPTY, Said, VersionEvent, Versions, folded

NAMES = ("000001", "000002", "000003")

WISHES = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from(NAMES), st.just(0.0)),
        st.tuples(st.just("promote"), st.sampled_from((BASE, *NAMES)), st.just(0.0)),
        st.tuples(st.just("rollback"), st.just(""), st.just(0.0)),
        st.tuples(st.just("canary"), st.sampled_from(NAMES), st.sampled_from((0.0, 0.1, 0.5, 1.0))),
        st.tuples(st.just("end"), st.just(""), st.just(0.0)),
    ),
    max_size=20,
)


def events_of(versions: Versions, wish: tuple[str, str, float]) -> Sequence[VersionEvent]:
    """What is said to a wish; nothing if the rules refuse it."""
    kind, name, share = wish
    try:
        match kind:
            case "publish":
                return [rules.VersionPublished(version=name, weights=f"w{name}")]
            case "promote":
                return rules.promoted(versions, name, weights="w", gate="passed")
            case "rollback":
                return rules.rolled_back(versions, weights="w")
            case "canary":
                return rules.canary(versions, name, share, weights="w")
            case _:
                return rules.ended(versions)
    except PodiumError:
        return []


def said(versions: Versions, events: Sequence[VersionEvent]) -> Said:
    return Said(n=versions.n + 1, at=versions.n + 1, events=tuple(events))


def after(*wishes: tuple[Any, ...], versions: Versions = EMPTY) -> Versions:
    for kind, name, share in ((*wish, "", 0.0)[:3] for wish in wishes):
        versions = folded(versions, [said(versions, events_of(versions, (kind, name, share)))])
    return versions


@given(WISHES)
def test_whatever_is_said_one_version_is_current_and_the_canary_is_another(
    wishes: list[tuple[str, str, float]],
) -> None:
    versions, lines = EMPTY, list[Said]()
    stack = [BASE]
    for wish in wishes:
        events = events_of(versions, wish)
        lines.append(said(versions, events))
        versions = folded(versions, lines[-1:])
        if wish[0] == "promote" and wish[1] != stack[-1]:
            stack.append(wish[1])
        elif wish[0] == "rollback" and events:
            stack.pop()
        assert [*versions.before, versions.current] == stack
        assert versions.n == len(lines)
        if versions.canary is not None:
            assert versions.canary.version != versions.current
            assert 0 < versions.canary.share <= 1
    kept = [msgspec.json.decode(msgspec.json.encode(line), type=Said) for line in lines]
    assert kept == lines
    assert folded(EMPTY, kept) == versions
    middle = len(kept) // 2
    assert folded(folded(EMPTY, kept[:middle]), kept[middle:]) == versions


@given(st.lists(st.text(max_size=8)), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_larger_share_keeps_the_runs_of_a_smaller_one(
    runs: list[str], one: float, other: float
) -> None:
    small, large = (
        after(("canary", "000002", share)) for share in (min(one, other), max(one, other))
    )
    for run in runs:
        if small.answers(run) == "000002":
            assert large.answers(run) == "000002"
        assert small.answers("") == BASE


def test_a_share_of_the_runs_is_about_that_many_and_others_for_another_canary() -> None:
    runs = [f"{place:012}0" for place in range(4_000)]
    shares = [after(("canary", name, 0.25)) for name in ("000002", "000003")]
    first, second = ({run for run in runs if each.answers(run) != BASE} for each in shares)
    for found in (first, second):
        assert 0.22 < len(found) / len(runs) < 0.28
    assert 0.04 < len(first & second) / len(runs) < 0.09


def test_rolling_back_goes_the_way_that_promotions_came() -> None:
    versions = after(("promote", "000001"), ("promote", "000002"), ("promote", "000002"))
    assert (versions.current, rules.back(versions)) == ("000002", "000001")
    versions = after(("rollback",), ("rollback",), versions=versions)
    assert versions.current == BASE
    with pytest.raises(Conflict, match="none was before it"):
        rules.back(versions)


def test_a_canary_ends_when_it_is_promoted_or_rolled_back_to() -> None:
    versions = after(("canary", "000002", 0.1), ("promote", "000002"))
    assert versions.canary is None
    versions = after(("canary", "000001", 0.1), ("promote", "000002"), versions=versions)
    assert versions.canary is not None, "another one's promotion leaves it"
    versions = after(("promote", "000001"), ("promote", "000003"), ("canary", "000001", 1.0))
    assert after(("rollback",), versions=versions).canary is None


def test_what_is_no_canary_is_refused() -> None:
    versions = after(("canary", "000001", 0.1))
    for share in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(Usage, match="more than 0 and at most 1"):
            rules.canary(EMPTY, "000001", share, weights="")
    with pytest.raises(Usage, match="answers every run"):
        rules.canary(versions, BASE, 0.5, weights="")
    with pytest.raises(Conflict, match="000001 is the canary, with 10% of the runs"):
        rules.canary(versions, "000002", 0.5, weights="")
    assert rules.canary(versions, "000001", 0.1, weights="") == []
    with pytest.raises(Conflict, match="no version is a canary"):
        rules.ended(EMPTY)


def test_of_one_set_the_last_scores_count() -> None:
    def scored(*scores: dict[str, Any]) -> Said:
        return Said(n=1, at=1, events=(rules.VersionScored(version="000001", scores=scores),))

    versions = folded(
        EMPTY,
        [scored({"set": "a", "x": 1}, {"set": "b", "x": 2}), scored({"set": "a", "x": 3})],
    )
    assert versions.scores["000001"] == {"a": {"set": "a", "x": 3}, "b": {"set": "b", "x": 2}}
