"""The hash chain of a run's log: what counts, what is set aside, and what a kept head adds."""

from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.actions import Report
from protocol.codec import Commit, decode_commit, digest, encode
from protocol.events import AnyEvent, Archived, RunActivated, RunStarted, SignalReceived
from replay.chain import (
    EMPTY,
    MAX_ASIDE,
    Head,
    RunLog,
    Stored,
    assemble,
    extend,
    hash_at,
    purged_meanwhile,
    verdict,
)
from replay.scrub import KeptHead, compare
from tests.runs import AT, RUN, begin

COMMITS: Final = 6


def chained(count: int = COMMITS, mark: str = "") -> list[Stored]:
    """The messages of a sound run."""
    start = begin()
    started = RunStarted(
        run=RUN, task=start.task, pool=start.pool, policy=start.policy, budget=start.budget, at=AT
    )
    activated = RunActivated(epoch=1, conductor="a", rules="1")
    events: list[tuple[AnyEvent, ...]] = [(started, activated)]
    for number in range(1, count):
        name = digest(f"{mark}{number}".encode())
        events.append((SignalReceived(signal=name, kind="pause", by="a"),))
    found: list[Stored] = []
    prev = ""
    for number, each in enumerate(events, 1):
        commit = Commit(
            run=RUN, n=number, epoch=1, at=AT + number, causes=(), events=each, prev=prev
        )
        data = encode(commit)
        prev = digest(data)
        found.append(Stored(10 * number, data))
    return found


def kept(log: RunLog) -> KeptHead:
    return KeptHead(run=RUN, n=log.head.n, hash=log.head.hash)


SOUND: Final = chained()
SOUND_LOG: Final = assemble(RUN, SOUND, [])
SOUND_HEAD: Final = kept(SOUND_LOG)


def kinds(messages: list[Stored]) -> list[str]:
    return [each.kind for each in compare(assemble(RUN, messages, []), SOUND_HEAD)]


def test_a_sound_run_counts_whole() -> None:
    assert [each.n for each in SOUND_LOG.commits] == list(range(1, COMMITS + 1))
    assert SOUND_LOG.aside == []
    assert kinds(SOUND) == []
    assert [hash_at(SOUND_LOG, n) for n in range(1, COMMITS + 1)] == [
        digest(each.data) for each in SOUND
    ]
    assert hash_at(SOUND_LOG, 0) == hash_at(SOUND_LOG, COMMITS + 1) == ""


@given(st.integers(0, COMMITS - 1), st.data())
def test_the_hash_chain_and_the_kept_head_find_every_flipped_bit(
    at: int, data: st.DataObject
) -> None:
    bit = data.draw(st.integers(0, 8 * len(SOUND[at].data) - 1))
    flipped = bytearray(SOUND[at].data)
    flipped[bit // 8] ^= 1 << bit % 8
    messages = [*SOUND[:at], Stored(SOUND[at].seq, bytes(flipped)), *SOUND[at + 1 :]]
    log = assemble(RUN, messages, [])
    assert log.head.n <= at + 1
    if at < COMMITS - 1:  # whatever follows doesn't chain to it
        assert len(log.aside) >= COMMITS - 1 - at
    assert kinds(messages) == ["broken"]


@given(st.integers(0, COMMITS - 2))
def test_a_gap_is_found(at: int) -> None:
    messages = SOUND[:at] + SOUND[at + 1 :]
    log = assemble(RUN, messages, [])
    assert log.head.n == at
    assert "is next" in log.aside[0].why
    assert kinds(messages) == ["broken"]


@given(st.permutations(range(COMMITS)))
def test_a_swap_is_found(order: list[int]) -> None:
    messages = [Stored(SOUND[place].seq, SOUND[each].data) for place, each in enumerate(order)]
    log = assemble(RUN, messages, [])
    in_place = next((i for i, each in enumerate(order) if i != each), COMMITS)
    if in_place == COMMITS:
        assert log.commits == SOUND_LOG.commits
    else:
        assert log.aside
        assert log.commits[:in_place] == SOUND_LOG.commits[:in_place]
        assert log.commits == SOUND_LOG.commits[: len(log.commits)]  # never in another order
        assert kinds(messages) in (["broken"], ["cut"])


@given(st.integers(0, COMMITS - 1))
def test_a_cut_tail_is_found_by_the_kept_head_only(keep: int) -> None:
    log = assemble(RUN, SOUND[:keep], [])
    assert log.aside == []
    assert compare(log, None) == []
    (finding,) = compare(log, SOUND_HEAD)
    assert finding.kind == "cut"
    assert f"ends with commit {keep}; it once had {COMMITS}" in finding.detail


def test_another_history_of_the_same_length_is_found() -> None:
    assert kinds(chained(mark="other")) == ["broken"]
    (finding,) = compare(assemble(RUN, chained(COMMITS + 1, "other"), []), SOUND_HEAD)
    assert finding.kind == "broken"
    assert SOUND_HEAD.hash in finding.detail


def test_a_longer_log_that_passes_its_kept_head_is_sound() -> None:
    for count in range(1, COMMITS):
        earlier = kept(assemble(RUN, SOUND[:count], []))
        assert compare(SOUND_LOG, earlier) == []


def test_strangers_are_told_and_break_nothing() -> None:
    messages = [*SOUND[:3], Stored(31, b"noise"), *SOUND[3:], Stored(99, b"more")]
    log = assemble(RUN, messages, [Stored(5, b"noise")])
    assert log.commits == SOUND_LOG.commits
    assert log.head == SOUND_LOG.head._replace(seq=99)
    (finding,) = compare(log, SOUND_HEAD)
    assert finding.kind == "foreign"
    assert "3 messages are set aside" in finding.detail


def test_a_second_copy_of_a_commit_is_set_aside() -> None:
    """Should the broker ever store an append twice, it counts once."""
    again = [*SOUND[:3], Stored(35, SOUND[2].data), *SOUND[3:]]
    log = assemble(RUN, again, [])
    assert log.commits == SOUND_LOG.commits
    assert [each.seq for each in log.aside] == [35]


def test_a_stale_epoch_is_set_aside() -> None:
    before = SOUND_LOG.head
    taken = Commit(
        run=RUN,
        n=before.n + 1,
        epoch=2,
        at=before.at,
        causes=("activation",),
        events=(RunActivated(epoch=2, conductor="b", rules="1"),),
        prev=before.hash,
    )
    data = encode(taken)
    for epoch in (1, 3):
        stale = Commit(
            run=RUN,
            n=before.n + 2,
            epoch=epoch,
            at=before.at,
            causes=(),
            events=(),
            prev=digest(data),
        )
        log = assemble(RUN, [*SOUND, Stored(100, data), Stored(101, encode(stale))], [])
        assert log.head.n == before.n + 1
        assert f"is of epoch {epoch}, and the run is in epoch 2" in log.aside[0].why


anything = st.binary(max_size=40) | st.sampled_from([each.data for each in SOUND])


@given(st.lists(anything), st.lists(anything), st.data())
def test_reading_is_total_and_reading_on_is_the_same(
    commits: list[bytes], inbox: list[bytes], data: st.DataObject
) -> None:
    stored = [Stored(seq, each) for seq, each in enumerate(commits, 1)]
    letters = [Stored(seq, each) for seq, each in enumerate(inbox, 1)]
    whole = assemble(RUN, stored, letters)
    first, second = (
        data.draw(st.integers(0, len(stored))),
        data.draw(st.integers(0, len(letters))),
    )
    parts = assemble(RUN, stored[:first], letters[:second])
    extend(parts, stored[first:], letters[second:])
    assert (parts.commits, parts.inbox, parts.head) == (whole.commits, whole.inbox, whole.head)
    assert sorted(parts.aside) == sorted(whole.aside)
    assert len(whole.commits) + sum(each.where == "commits" for each in whole.aside) == len(stored)
    assert whole.head.seq == (len(stored) if stored else 0)


def test_what_is_set_aside_is_bounded() -> None:
    log = assemble(RUN, [Stored(seq, b"") for seq in range(1, MAX_ASIDE + 50)], [])
    assert len(log.aside) == MAX_ASIDE
    assert log.head.seq == MAX_ASIDE + 49
    extend(log, [], [Stored(1, b"")])
    assert log.aside[-1].where == "inbox"


def test_the_inbox_is_read_by_run() -> None:
    mine = encode(Report(run=RUN, call="1-0", attempt=1, status="OK", value=1))
    others = encode(Report(run=RUN[::-1], call="1-0", attempt=1, status="OK", value=1))
    log = assemble(RUN, [], [Stored(1, mine), Stored(2, others), Stored(3, SOUND[0].data)])
    assert [entry.hash for entry in log.inbox] == [digest(mine)]
    assert [each.seq for each in log.aside] == [2, 3]
    assert log.inbox_seq == 3


MINE: Final = SOUND[2].data
AFTER: Final = Head(2, digest(SOUND[1].data), SOUND[1].seq, 1, AT + 2)


@pytest.mark.parametrize(
    ("after", "tail", "became"),
    [
        (AFTER, Stored(30, MINE), "done"),
        (AFTER, Stored(AFTER.seq, SOUND[1].data), "retry"),
        (AFTER, Stored(30, b"a stranger"), "fenced"),
        (AFTER, Stored(40, SOUND[3].data), "fenced"),
        (AFTER, Stored(10, SOUND[0].data), "fenced"),
        (AFTER, None, "fenced"),
        (EMPTY, None, "retry"),
        (EMPTY, Stored(10, MINE), "done"),
        (EMPTY, Stored(10, b"a stranger"), "fenced"),
        (AFTER._replace(seq=25), Stored(25, b"set aside before"), "retry"),
    ],
)
def test_the_tail_tells_what_became_of_an_append(
    after: Head, tail: Stored | None, became: str
) -> None:
    assert verdict(MINE, after, tail) == became


STRANGERS: Final[list[dict[str, Any]]] = [
    {"epoch": 2},
    {"epoch": 0},
    {"at": 1},
    {"prev": "0" * 32},
    {"run": "0" * 13},
    {"n": 9},
    {"events": (RunActivated(epoch=1, conductor="b", rules="1"),)},
    {"epoch": 2, "events": (RunActivated(epoch=2, conductor="b", rules="1"),)},
]
"""What makes a commit that would be next another one's, but for the last: a takeover."""


@given(
    st.lists(
        st.tuples(st.integers(0, COMMITS - 1), st.sampled_from([*STRANGERS, None])), max_size=8
    )
)
def test_many_messages_at_once_are_read_as_one_by_one(
    strange: list[tuple[int, dict[str, Any] | None]],
) -> None:
    datas: list[bytes] = []
    for place, stored in enumerate(SOUND):
        for at, changes in strange:
            if at == place:
                commit = decode_commit(stored.data)
                changed = msgspec.structs.replace(commit, **changes) if changes else None
                datas.append(encode(changed) if changed else b"noise")
        datas.append(stored.data)
    messages = [Stored(seq, data) for seq, data in enumerate(datas, 1)]
    one_by_one = RunLog(RUN)
    for each in messages:
        extend(one_by_one, [each], [])
    for each in messages:
        extend(one_by_one, [], [each])
    assert assemble(RUN, messages, messages) == one_by_one


def test_commits_that_were_removed_while_they_were_read_are_missed() -> None:
    stands = Commit(
        run=RUN,
        n=COMMITS + 1,
        epoch=1,
        at=AT + COMMITS + 1,
        causes=("archive",),
        events=(Archived(manifest="there", head=SOUND_HEAD.hash),),
        prev=SOUND_HEAD.hash,
    )
    last = Stored(99, encode(stands))
    assert not purged_meanwhile([last])
    assert not purged_meanwhile([*SOUND, last])
    assert not purged_meanwhile(SOUND)
    for upto in range(1, COMMITS):
        assert purged_meanwhile([*SOUND[:upto], last])
