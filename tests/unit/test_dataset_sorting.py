"""More structs than memory holds are as they would be in it."""

import subprocess
import sys
from collections import deque

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.datasets.sorting import Queue, Sorted


class One(msgspec.Struct, frozen=True):
    number: int
    text: str


ones = st.builds(One, st.integers(-(2**63), 2**63 - 1), st.text(max_size=9))


@given(st.lists(ones, max_size=30))
def test_sorted_is_as_python_sorts(found: list[One]) -> None:
    kept = Sorted(One, 2)
    for each in found:
        kept.add((each.number, each.text), each)
    assert len(kept) == len(found)
    assert list(kept) == sorted(found, key=lambda each: (each.number, each.text))
    texts = [each.text for each in kept.by(1)]
    assert texts == sorted(texts)
    assert list(kept.by(1, 0)) == sorted(found, key=lambda each: (each.text, each.number))


def test_two_readers_and_a_writer_do_not_disturb_one_another() -> None:
    kept = Sorted(One, 1)
    for number in range(9):
        kept.add((number,), One(number, ""))
    one, other = iter(kept), iter(kept)
    assert [next(one).number, next(one).number, next(other).number] == [0, 1, 0]
    kept.add((99,), One(99, ""))
    assert [each.number for each in other][:8] == list(range(1, 9))


@given(st.lists(st.one_of(ones, st.none()), max_size=40))
def test_a_queue_is_as_one_in_memory(steps: list[One | None]) -> None:
    kept, known = Queue(One), deque[One]()
    for each in steps:
        if each is not None:
            kept.append(each)
            known.append(each)
        elif known:
            assert kept.popleft() == known.popleft()
        else:
            with pytest.raises(IndexError):
                kept.popleft()
        assert len(kept) == len(known)


FULL = """
import resource
from trainer.datasets.facts import Scored
from trainer.datasets.sorting import Sorted
from protocol.errors import DiskFault

resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
kept = Sorted(Scored, 1)
try:
    for number in range(10**6):
        kept.add((number,), Scored(parts={"x" * 500: 1.0}))
except DiskFault as error:
    print(error.whole())
"""


def test_a_disk_that_is_full_is_said_with_the_cure() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL], capture_output=True, text=True, timeout=120, check=True
    )
    assert "can't be kept on the disk" in done.stdout
    assert "TMPDIR" in done.stdout
