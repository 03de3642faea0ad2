"""Standing at any event of a run, what changed there, what it came of and what came of it."""

from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.actions import Report
from protocol.errors import Usage
from protocol.events import RunStarted, SignalReceived
from protocol.run import evolve
from protocol.state import RunState
from protocol.subjects import child_id
from protocol.views import child_report, child_start
from replay import film
from replay.attribution import attributed
from replay.causality import Direction, Graph, Node, walk
from replay.chain import RunLog
from replay.differences import HIDDEN, at_path, changes, tree
from replay.film import Film
from replay.history import entries, reports
from replay.redecide import redecide
from replay.timeline import timeline
from tests.logs import log_of
from tests.runs import RUN, Driver, answer, begin, inbox, names, plan, planned, started
from tests.strategies import MOVES
from tests.unit.test_forks import forked, joined
from tests.unit.test_run_properties import HISTORIES, STARTS, History, lived, thorough


@thorough
@given(STARTS, HISTORIES)
def test_events_are_attributed_as_they_are_decided(start: Any, history: History) -> None:
    log = log_of(lived(start, history))
    again = [
        (step.cause, decided.first + sum(len(s.events) for s in decided.steps[:place]))
        for decided in redecide(log)
        for place, step in enumerate(decided.steps)
        for _ in step.events
    ]
    assert list(attributed(entries(log))) == again


@thorough
@given(STARTS, HISTORIES)
def test_every_event_comes_of_something_before_it(start: Any, history: History) -> None:
    graph = Graph(log_of(lived(start, history)))
    for row, causes in zip(graph.timeline.rows, graph.causes, strict=True):
        assert all(1 <= each < row.number for each in causes), "no circles"
        if not isinstance(row.entry.event, RunStarted | SignalReceived):
            assert causes, row
        for each in causes:
            assert row.number in graph.effects[each - 1]
    assert sum(map(len, graph.causes)) == sum(map(len, graph.effects))
