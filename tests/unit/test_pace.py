"""How the exporter keeps out of the way: it rests where the machine is full, and only there."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.tracing.pace import MAX_REST_S, SHARE, Pace, Times, rest_s, times

seconds = st.floats(0, 1e4)


@given(seconds, seconds)
def test_who_waits_longer_than_he_works_has_his_share_and_no_more(
    worked: float, waited: float
) -> None:
    rest = rest_s(worked, waited)
    assert 0 <= rest <= MAX_REST_S
    if waited <= worked:
        assert rest == 0
    elif rest < MAX_REST_S:
        assert worked <= SHARE * (worked + waited + rest) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("worked", "waited", "rest"),
    [
        (0, 0, 0),
        (0.1, 0, 0),
        (0.1, 0.1, 0),
        (0.1, 0.2, 0.1 / SHARE - 0.3),
        (0.1, 4, 0),
        (9, 10, MAX_REST_S),
    ],
)
def test_rests(worked: float, waited: float, rest: float) -> None:
    assert rest_s(worked, waited) == pytest.approx(rest)


def test_a_rest_is_for_what_was_worked_since_the_last() -> None:
    told: Iterator[Times] = iter([Times(5, 5), Times(5.1, 5.2), Times(5.2, 5.2), Times(5.2, 5.2)])
    pace = Pace(lambda: next(told))
    assert [pace.rest_s() for _ in range(3)] == pytest.approx([0.1 / SHARE - 0.3, 0, 0])


def test_the_system_says_what_all_threads_have_had(tmp_path: Path) -> None:
    for thread, said in {"1": "2000000000 500000000 7\n", "2": "1 2 3\n", "3": "nonsense"}.items():
        (tmp_path / thread).mkdir()
        (tmp_path / thread / "schedstat").write_text(said)
    assert times(tmp_path) == pytest.approx((2.0, 0.5))
    assert times(tmp_path / "elsewhere") == (0, 0)


def test_this_process_has_had_something() -> None:
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this system does not say")
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    before = times()
    sum(range(1_000_000))
    after = times()
    done.set()
    thread.join()
    assert after.worked_s > before.worked_s > 0
    assert after.waited_s >= before.waited_s
