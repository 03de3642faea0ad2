"""Damage is found and named: any flipped bit, any message removed, any two swapped."""

from operator import attrgetter
from typing import Any, Final, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from podium.cli.verify import TITLES
from protocol.codec import Commit, decode_commit, digest, encode
from protocol.events import Archived, RunActivated
from protocol.inbox import Reward
from replay.chain import Messages, RunLog, Stored, assemble
from replay.damage import Known, damage
from replay.flips import MAX_SEARCHED_BYTES, MAX_SEARCHES, flip_back
from replay.inbox_damage import inbox_damage
from replay.problems import Problem, What
from replay.verify import verify
from tests.logs import chained, log_of, messages_of
from tests.runs import RUN, answer, plan, planned, started
from tests.unit.test_run_properties import HISTORIES, STARTS, History, lived

searching = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def a_log() -> RunLog:
    """A finished run of two rounds, with a retry, a signal and a late report."""
    driver = started(planned(n=1), planned("agent", n=2))
    driver.lost("1-0")
    driver.report("1-0", value=1)
    driver.signal("extend", rounds=1)
    driver.report("1-1", value={"a": [1, 2]})
    driver.reply(plan(planned(n=3)))
    driver.report("2-0", value=3)
    driver.report("1-1", value="late")
    driver.reply(answer())
    return log_of(driver)


LOG: Final = a_log()
SOUND: Final = messages_of(LOG)
HEAD: Final = Known(LOG.head.n, LOG.head.hash)


def problems(messages: Messages, kept: Known | None = HEAD, run: str = RUN) -> list[Problem]:
    """All that the bytes alone show."""
    found = damage(run, messages, kept)
    return [*found.problems, *inbox_damage(run, found, messages.inbox)]


def named(found: list[Problem]) -> list[tuple[str, int]]:
    """What is damaged, and in which commit."""
    return [(each.what, each.commit) for each in found if each.kind == "damaged"]


def flipped(stored: Stored, bit: int) -> Stored:
    data = bytearray(stored.data)
    data[bit // 8] ^= 1 << bit % 8
    return Stored(stored.seq, bytes(data))


def archived_after(head: str) -> Commit:
    """The commit that stands for the log's past, if that ends with this hash."""
    return Commit(
        run=RUN,
        n=HEAD.n + 1,
        epoch=1,
        at=LOG.head.at,
        causes=("archive",),
        events=(Archived(manifest="file:///archive", head=head),),
        prev=head,
    )


def with_commits(commits: list[Stored], messages: Messages = SOUND) -> Messages:
    return messages._replace(commits=commits)


def test_a_sound_run_has_no_problem() -> None:
    assert problems(SOUND) == []
    assert problems(SOUND, None) == []
    assert damage(RUN, SOUND).sound == len(LOG.commits)


# -------------------------------------------------------------------------------- any single bit


@searching
@given(STARTS, HISTORIES, st.data())
def test_any_flipped_bit_of_any_commit_is_found_in_the_right_one(
    start: Any, history: History, data: st.DataObject
) -> None:
    log = log_of(lived(start, history))
    messages = messages_of(log)
    assert named(problems(messages, Known(log.head.n, log.head.hash))) == []
    at = data.draw(st.integers(0, len(messages.commits) - 1))
    bit = data.draw(st.integers(0, 8 * len(messages.commits[at].data) - 1))
    commits = list(messages.commits)
    commits[at] = flipped(commits[at], bit)
    found = problems(messages._replace(commits=commits), Known(log.head.n, log.head.hash))
    damaged = [each for each in found if each.kind == "damaged"]
    assert [each.commit for each in damaged] == [at + 1]
    if len(commits[at].data) <= MAX_SEARCHED_BYTES:
        assert damaged[0].what == "flipped"
        assert f"bit {bit % 8} of byte {bit // 8} is flipped" in damaged[0].likely
    else:
        assert damaged[0].what in ("changed", "unreadable")


@searching
@given(st.integers(0, len(SOUND.commits) - 1), st.data())
def test_without_a_kept_head_only_the_last_commit_can_hide_a_flip(
    at: int, data: st.DataObject
) -> None:
    bit = data.draw(st.integers(0, 8 * len(SOUND.commits[at].data) - 1))
    commits = list(SOUND.commits)
    commits[at] = flipped(commits[at], bit)
    found = problems(with_commits(commits), None)
    if at < len(commits) - 1:
        assert [n for _, n in named(found)] == [at + 1]
    elif named(found):
        assert named(found)[0][1] in (at, at + 1)


@searching
@given(st.integers(0, len(SOUND.inbox) - 1), st.data())
def test_any_flipped_bit_of_a_counted_inbox_message_is_found(at: int, data: st.DataObject) -> None:
    bit = data.draw(st.integers(0, 8 * len(SOUND.inbox[at].data) - 1))
    inbox = list(SOUND.inbox)
    known = digest(inbox[at].data)
    inbox[at] = flipped(inbox[at], bit)
    (problem,) = problems(SOUND._replace(inbox=inbox))
    acted = next(c.n for c in LOG.commits if f"inbox:{known}" in c.causes)
    assert (problem.what, problem.commit, problem.seq) == ("inbox_changed", acted, inbox[at].seq)
    assert known in problem.where
    assert f"bit {bit % 8} of byte {bit // 8} is flipped" in problem.likely


@pytest.mark.parametrize("at", range(len(SOUND.commits)))
@pytest.mark.parametrize("field", ["run", "n", "epoch", "at", "prev", "causes"])
def test_more_than_one_bit_is_found_too(at: int, field: str) -> None:
    other: dict[str, Any] = {"run": "x" * 13, "n": 77, "epoch": 6, "at": 3, "prev": "f" * 32}
    message = msgspec.json.decode(SOUND.commits[at].data)
    message[field] = other.get(field, ["deadline"])
    commits = list(SOUND.commits)
    commits[at] = Stored(commits[at].seq, msgspec.json.encode(message))
    found = named(problems(with_commits(commits)))
    assert found == [("changed", at + 1)]


@pytest.mark.parametrize("at", range(len(SOUND.commits)))
def test_bytes_that_are_no_commit_any_more_are_named(at: int) -> None:
    commits = list(SOUND.commits)
    commits[at] = Stored(commits[at].seq, commits[at].data[:-200])
    (problem,) = problems(with_commits(commits))
    assert (problem.what, problem.commit, problem.seq) == ("unreadable", at + 1, commits[at].seq)


def test_a_flipped_bit_is_searched_for_in_small_messages_only() -> None:
    data = b"x" * MAX_SEARCHED_BYTES
    wanted = digest(b"y" + data[1:])
    found = flip_back(data, wanted)
    assert found is not None
    assert (found.byte, found.bit) == (0, 0)
    assert flip_back(data, digest(b"z" + data[1:-1] + b"!")) is None
    assert flip_back(data + b"x", digest(b"y" + data)) is None


def test_two_flips_in_two_commits_are_both_named() -> None:
    commits = list(SOUND.commits)
    commits[1], commits[4] = flipped(commits[1], 900), flipped(commits[4], 333)
    assert named(problems(with_commits(commits))) == [("flipped", 2), ("flipped", 5)]


# -------------------------------------------------------------------------------- removed, swapped


@searching
@given(STARTS, HISTORIES, st.data())
def test_any_removal_is_found_and_named(start: Any, history: History, data: st.DataObject) -> None:
    log = log_of(lived(start, history))
    messages = messages_of(log)
    at = data.draw(st.integers(0, len(messages.commits) - 1))
    commits = messages.commits[:at] + messages.commits[at + 1 :]
    found = problems(messages._replace(commits=commits), Known(log.head.n, log.head.hash))
    what = "cut" if at == len(messages.commits) - 1 else "removed"
    assert named(found) == [(what, at + 1)]
    assert f"commit {at + 1}" in found[0].where


@pytest.mark.parametrize("first", range(len(SOUND.commits) - 1))
def test_several_removed_in_a_row_are_one_gap(first: int) -> None:
    commits = SOUND.commits[:first] + SOUND.commits[first + 2 :]
    (problem,) = problems(with_commits(commits))
    assert problem.where == f"commits {first + 1} to {first + 2}"
    assert problem.what == ("cut" if first == len(SOUND.commits) - 2 else "removed")


@searching
@given(STARTS, HISTORIES, st.data())
def test_any_two_swapped_are_found_and_named(
    start: Any, history: History, data: st.DataObject
) -> None:
    log = log_of(lived(start, history))
    messages = messages_of(log)
    count = len(messages.commits)
    assume(count > 1)
    one = data.draw(st.integers(0, count - 2))
    two = data.draw(st.integers(one + 1, count - 1))
    datas = [each.data for each in messages.commits]
    datas[one], datas[two] = datas[two], datas[one]
    commits = [Stored(old.seq, new) for old, new in zip(messages.commits, datas, strict=True)]
    found = problems(messages._replace(commits=commits), Known(log.head.n, log.head.hash))
    (problem,) = (each for each in found if each.kind == "damaged")
    assert (problem.what, problem.commit) == ("out_of_order", one + 1)
    assert problem.where == f"commits {one + 1} and {two + 1}"


@pytest.mark.parametrize("at", range(len(SOUND.inbox)))
def test_an_inbox_message_that_is_gone_is_named(at: int) -> None:
    known = digest(SOUND.inbox[at].data)
    inbox = SOUND.inbox[:at] + SOUND.inbox[at + 1 :]
    (problem,) = problems(SOUND._replace(inbox=inbox))
    assert problem.what == "inbox_removed"
    assert problem.where == f"inbox message {known}"
    assert "of call" in problem.expected or "the signal extend by ada" in problem.expected


def test_an_inbox_message_that_was_written_otherwise_is_named() -> None:
    report = msgspec.json.decode(SOUND.inbox[1].data)
    report["value"] = "something else"
    inbox = list(SOUND.inbox)
    inbox[1] = Stored(inbox[1].seq, msgspec.json.encode(report))
    (problem,) = problems(SOUND._replace(inbox=inbox))
    assert (problem.what, problem.seq) == ("inbox_changed", inbox[1].seq)
    assert problem.expected.startswith("the report of call 1-0, attempt 2")


def test_a_cut_tail_is_found_by_the_kept_head_only() -> None:
    cut = with_commits(SOUND.commits[:-2])
    assert problems(cut, None) == []
    (problem,) = problems(cut)
    assert (problem.what, problem.where) == ("cut", f"commits {HEAD.n - 1} to {HEAD.n}")
    (problem,) = problems(Messages([], []))
    assert problem.found == "no commit of it is there"


def test_a_reward_for_what_is_not_there_any_more_is_named() -> None:
    def judged(head: str) -> list[Problem]:
        reward = Reward(run=RUN, channel="correct", value=1.0, by="a checker", head=head)
        inbox = [*SOUND.inbox, Stored(999, encode(reward))]
        return problems(Messages(SOUND.commits[:-1], inbox), None)

    assert judged("") == judged(digest(SOUND.commits[-2].data)) == []
    (problem,) = judged(HEAD.hash)
    assert (problem.kind, problem.what, problem.seq) == ("damaged", "judged", 999)
    assert HEAD.hash in problem.expected


def test_another_end_than_the_kept_one_is_found() -> None:
    (problem,) = problems(SOUND, Known(HEAD.n, "0" * 32))
    assert (problem.what, problem.commit) == ("changed", HEAD.n)
    assert "the kept head" in problem.expected
    assert problems(SOUND, Known(2, digest(SOUND.commits[1].data))) == []


def test_a_log_that_was_written_anew_is_found_by_the_kept_head() -> None:
    """Its chain is whole: only what is known from elsewhere contradicts it."""
    for first in range(3):
        later = [msgspec.structs.replace(each, at=each.at + 1) for each in LOG.commits[first:]]
        anew = messages_of(RunLog(RUN, chained([*LOG.commits[:first], *later]), inbox=LOG.inbox))
        assert problems(anew, None) == []
        for n in range(first + 1, HEAD.n + 1):
            (problem,) = problems(anew, Known(n, digest(SOUND.commits[n - 1].data)))
            last = n == HEAD.n
            assert (problem.what, problem.commit) == ("changed" if last else "rewritten", n)
        for n in range(1, first + 1):
            assert problems(anew, Known(n, digest(SOUND.commits[n - 1].data))) == []


def test_a_commit_that_says_that_another_past_is_archived_is_found() -> None:
    stands = Stored(900, encode(archived_after("0" * 32)))
    (problem,) = problems(Messages([stands], []))
    assert (problem.what, problem.commit) == ("rewritten", HEAD.n)


def test_a_store_that_lost_much_is_not_searched_for_ever() -> None:
    driver = started()
    for _ in range(2 * MAX_SEARCHES + 20):
        driver.signal("resume")
    whole = messages_of(log_of(driver)).commits
    spoilt = [flipped(each, 90) if n % 2 else each for n, each in enumerate(whole[:-1])]
    count = sum(each not in whole for each in spoilt)
    found = named(problems(with_commits([*spoilt, whole[-1]], Messages([], [])), None))
    told = [what for what, commit in found if what in ("flipped", "changed", "unreadable")]
    assert len(told) == count > MAX_SEARCHES
    assert told.count("flipped") == MAX_SEARCHES


# -------------------------------------------------------------------------------- strangers, order


def test_strangers_and_copies_are_set_aside_and_leave_the_run_sound() -> None:
    other = msgspec.structs.replace(LOG.commits[2], run="x" * 13)
    extra = [
        Stored(16, b"noise"),
        Stored(26, SOUND.commits[1].data),
        Stored(27, encode(other)),
        Stored(999, b"more noise"),
    ]
    commits = sorted([*SOUND.commits, *extra], key=attrgetter("seq"))
    found = problems(Messages(commits, [*SOUND.inbox, Stored(998, b"noise")]))
    assert {each.kind for each in found} == {"aside"}
    assert [(each.what, each.seq) for each in found] == [
        ("foreign", 16),
        ("duplicate", 26),
        ("foreign", 27),
        ("foreign", 999),
        ("foreign", 998),
    ]
    values = {entry.hash: entry.message for entry in LOG.inbox}
    log = assemble(RUN, commits, SOUND.inbox)
    assert verify(log, Messages(commits, SOUND.inbox), values=dict(values)).outcome == "sound"


def test_a_commit_of_a_conductor_that_had_lost_the_run_is_named() -> None:
    fourth = LOG.commits[3]
    taken = msgspec.structs.replace(
        fourth,
        epoch=2,
        causes=("activation",),
        events=(RunActivated(epoch=2, conductor="b", rules="1"),),
    )
    log = messages_of(RunLog(RUN, chained([*LOG.commits[:3], taken])))
    stale = Stored(log.commits[-1].seq + 1, encode(fourth))
    (problem,) = problems(Messages([*log.commits, stale], SOUND.inbox), None)
    assert (problem.kind, problem.what, problem.seq) == ("aside", "stale_writer", stale.seq)
    assert "of epoch 2" in problem.likely


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"at": 5}, "is older than the one before it"),
        ({"epoch": 7}, "is of epoch 7, and the run is in epoch 1"),
    ],
)
def test_a_commit_that_was_written_against_the_order_is_named(
    change: dict[str, int], why: str
) -> None:
    commits = list(LOG.commits)
    commits[4] = msgspec.structs.replace(commits[4], **change)
    messages = messages_of(RunLog(RUN, chained(commits), inbox=LOG.inbox))
    found = problems(messages, None)
    assert named(found)[0] == ("order", 5)
    assert why in found[0].found


def test_a_log_whose_past_is_archived_is_sound_as_far_as_it_goes() -> None:
    archived = archived_after(HEAD.hash)
    stands = Stored(900, encode(archived))
    for messages in (Messages([stands], []), with_commits([*SOUND.commits, stands])):
        kept = Known(archived.n, digest(stands.data))
        assert problems(messages, kept) == []
        assert problems(messages, None) == []
    kept = Known(archived.n, digest(stands.data))
    assert named(problems(Messages([flipped(stands, 90)], []), kept)) != []
    found = verify(assemble(RUN, [stands], []), Messages([stands], []), values={})
    assert [(each.kind, each.what) for each in found.problems] == [("aside", "archived")]
    assert (found.outcome, found.decided) == ("sound", 0)
    assert "file:///archive" in found.problems[0].found


def test_every_problem_has_words_for_a_person() -> None:
    assert TITLES.keys() == set(get_args(What))


def test_whatever_stands_there_is_told_and_nothing_raised() -> None:
    @searching
    @given(
        st.lists(st.sampled_from(SOUND.commits).map(lambda s: s.data) | st.binary(max_size=30)),
        st.none() | st.just(HEAD) | st.just(Known(10**9, "x")),
    )
    def check(datas: list[bytes], kept: Known | None) -> None:
        commits = [Stored(seq, data) for seq, data in enumerate(datas, 1)]
        found = damage(RUN, Messages(commits, []), kept)
        inbox_damage(RUN, found, list(SOUND.inbox))
        whole = [decode_commit(each.data).n for each in SOUND.commits]
        assert found.sound <= max(whole)

    check()


def test_a_message_of_a_newer_version_on_which_was_decided_is_said_to_be_one() -> None:
    later = b'{"type":"Vote","run":"%s","by":"ada"}' % RUN.encode()
    cause = f"inbox:{digest(later)}"
    commits = list(LOG.commits)
    commits[3] = msgspec.structs.replace(commits[3], causes=(cause,))
    messages = messages_of(RunLog(RUN, chained(commits), inbox=LOG.inbox))
    messages.inbox.append(Stored(999, later))
    (problem,) = problems(messages, None)
    assert (problem.kind, problem.what, problem.commit) == ("newer", "unknown_message", 4)
    found = verify(assemble(RUN, *messages), messages, values={})
    assert found.outcome == "newer"
    assert {each.what for each in found.problems} == {"unknown_message"}
