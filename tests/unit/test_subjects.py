"""Names on the broker: each is one place, and can be told from every other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import subjects
from protocol.errors import InvalidData
from protocol.subjects import (
    ALPHABET,
    MAX_SHARDS,
    check_name,
    child_id,
    is_call,
    is_run,
    run_id,
    shard,
)

RANDOM = st.binary(min_size=8, max_size=8)
SHARDS = st.integers(0, MAX_SHARDS - 1)


@given(RANDOM, SHARDS)
def test_a_run_id_is_one_token_and_names_its_shard(randomness: bytes, k: int) -> None:
    run = run_id(randomness, k)
    assert is_run(run)
    assert len(run) == 13
    assert shard(run) == k
    assert subjects.commits(run) == f"log.{k}.{run}.c"
    assert subjects.inbox(run) == f"log.{k}.{run}.i"


def test_sixty_bits_of_the_randomness_count() -> None:
    ids = {run_id((1 << bit).to_bytes(8, "big")) for bit in range(60)}
    assert len(ids) == 60


@given(RANDOM, SHARDS, st.integers(1, 99), st.integers(0, 99), st.integers(1, 9))
def test_a_childs_id_is_derived_and_stays_on_its_shard(
    randomness: bytes, k: int, round_: int, index: int, attempt: int
) -> None:
    run, call = run_id(randomness, k), f"{round_}-{index}"
    child = child_id(run, call, attempt)
    assert is_run(child)
    assert child == child_id(run, call, attempt)
    assert shard(child) == k
    others = {
        child_id(run, call, attempt + 1),
        child_id(run, f"{round_}-{index + 1}", attempt),
        child_id(child, call, attempt),
        run,
    }
    assert child not in others
    assert len(others) == 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "A" * 13,
        "o" * 13,
        "a" * 12,
        "a" * 14,
        "a" * 12 + ".",
        "a" * 13 + "\n",
        "a" * 12 + "*",
    ],
)
def test_what_is_no_run_id(text: str) -> None:
    assert not is_run(text)


@pytest.mark.parametrize(
    "text", ["", "1", "1-", "-1", "1-1-1", "a-1", "1.1", "1-*", "1-1\n", "٣-1"]
)
def test_what_is_no_call_id(text: str) -> None:
    assert not is_call(text)
    assert is_call("1-0")
    assert is_call("12-63")


@pytest.mark.parametrize("name", ["a", "Tool_2-b", "x" * 64])
def test_a_name(name: str) -> None:
    check_name(name, "worker")


@pytest.mark.parametrize("name", ["", "2", "a.b", "a b", "*", ">", "ä", "x" * 65, "a\n", "-a"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(InvalidData, match=r"worker: .* is no name"):
        check_name(name, "worker")


def test_every_subject_is_another() -> None:
    run = run_id(b"12345678")
    all_of_them = [
        subjects.commits(run),
        subjects.inbox(run),
        subjects.hint(run, "c"),
        subjects.hint(run, "i"),
        subjects.task("high", run),
        subjects.task("normal", run),
        subjects.call("tool", "normal", run, "1-0", 1),
        subjects.call("tool", "normal", run, "1-0", 2),
        subjects.blob("ab", 0),
        subjects.head(run),
        subjects.live(run),
        subjects.withdraw("tool"),
    ]
    assert len(set(all_of_them)) == len(all_of_them)
    assert all(" " not in name and ".." not in name for name in all_of_them)


def test_the_letters_can_not_be_mistaken() -> None:
    assert len(set(ALPHABET)) == 32
    assert not set("ilou") & set(ALPHABET)
    assert subjects.log_stream(3) == "LOG-3"
