"""Any run gives a sound tree, the same live and later, and the same as what a conductor sends."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol import semconv
from protocol.actions import Report
from protocol.codec import Commit
from protocol.events import AnyEvent, AttemptStarted
from protocol.run import fold
from protocol.state import RunState
from protocol.traces import attempt_context, span_id, trace_id
from protocol.views import child_start
from replay.chain import RunLog
from replay.spans import Span, in_order, otlp_json
from replay.trace import Projector, of_run
from tests.runs import AT, POOL, RUN, Driver, begin
from tests.strategies import MOVES, ROOMY, World, arbitrary
from tests.traces import MODEL, assert_series, log_of, segments
from tests.unit.test_run_properties import HEDGED

histories = st.lists(st.lists(MOVES, min_size=1, max_size=3), min_size=4, max_size=25)


@given(
    st.builds(
        begin,
        budget=ROOMY,
        policy=st.sampled_from(
            [MODEL, begin().policy, replace(MODEL, replan_on="failure")],
        ),
        pool=st.sampled_from([POOL, HEDGED]),
    ),
    histories,
    st.sampled_from([(500, 600_000), (4, 600_000), (500, 1_000), (6, 1_000)]),
)
def test_any_run_gives_a_sound_tree(
    start: object, history: list[list[object]], limits: tuple[int, int]
) -> None:
    with segments(*limits):
        world = World(start)  # type: ignore[arg-type]
        for moves in history:
            world.happen(*moves)  # type: ignore[arg-type]
        log = log_of(world)
        found = of_run(log, messages=True, content=True)
        assert live(log) == found, "following the log gives what an export of the whole gives"
        assert_attempts_are_where_a_conductor_says(world, found)
    there = {span.id: span for span in found}
    assert len(there) == len(found)
    assert all(span.start_ns <= span.end_ns for span in found)
    roots = [span for span in found if not span.parent]
    for span in found:
        if span.parent in there:
            assert there[span.parent].trace == span.trace
    if world.state.phase == "ended":
        assert span_id(RUN) in {span.id for span in roots}
        assert {span.parent for span in found} <= {"", *there}
        assert_series(roots)
        begun, ended = min(s.start_ns for s in found), max(s.end_ns for s in roots)
        assert begun == there[span_id(RUN)].start_ns
        assert all(span.end_ns <= ended for span in found)
        assert {(link.trace, link.span) for span in found for link in span.links} <= {
            (span.trace, span.id) for span in found
        }
    assert {span.trace for span in found} <= {trace_id(RUN, n) for n in range(len(found))}
    assert otlp_json(found, {}) == otlp_json(reversed(found), {})


def assert_attempts_are_where_a_conductor_says(driver: Driver, found: list[Span]) -> None:
    """What the state knows when an attempt is sent is what is exported."""
    state, sent = RunState(), set()
    for event in driver.events:
        state = fold(state, [event])
        if isinstance(event, AttemptStarted):
            segment = state.calls[event.call].segment
            place = attempt_context(RUN, event.call, event.attempt, "", segment)
            sent.add((place.trace, place.span))
            if state.workers[state.calls[event.call].call.worker].kind == "conductor":
                assert child_start(state, event.call, {}).traceparent == place.traceparent
    made = {
        (span.trace, span.id)
        for span in found
        if span.kind == "internal" and span.attributes.get(semconv.CALL_ID)
        if span.attributes[semconv.ATTEMPT]
    }
    assert made <= sent
    assert made == sent or driver.state.phase != "ended"


def live(log: RunLog) -> list[Span]:
    """Messages one by one, as they stand in the stream."""
    projector = Projector(log.run, messages=True, content=True)
    waiting = list(log.inbox)
    found: list[Span] = []
    for commit, seq in zip(log.commits, log.seqs, strict=True):
        while waiting and waiting[0].seq < seq:
            entry = waiting.pop(0)
            if isinstance(entry.message, Report):
                projector.report(entry.hash, entry.message)
        found += projector.commit(commit)
    return in_order(found)


@given(st.lists(arbitrary(AnyEvent), max_size=30))
def test_nothing_that_was_recorded_breaks_it(events: list[AnyEvent]) -> None:
    projector = Projector(RUN, messages=True, content=True)
    for number, event in enumerate(events, 1):
        commit = Commit(run=RUN, n=number, epoch=1, at=AT, causes=(), events=(event,), prev="")
        otlp_json(projector.commit(commit), {"service.name": "podium"})
