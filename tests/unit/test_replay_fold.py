"""What the figures of reading a run are measured on, and that they can be measured."""

from benchmarks import replay_fold, synthetic
from protocol.events import CallSettled, ReportNoted
from replay.redecide import redecide

MADE = synthetic.run(600)


def test_a_long_run_is_a_run() -> None:
    log = MADE.log()
    assert log.run == MADE.run
    assert not log.set_aside
    events = list(log.events())
    assert 600 <= len(events) < 630
    assert log.state().outcome == "finished"
    for decided in redecide(log):
        assert decided.events == decided.commit.events
    settled = {event.status for event in events if isinstance(event, CallSettled)}
    assert settled == {"OK", "EXEC_ERR"}
    assert any(isinstance(event, ReportNoted) for event in events)


def test_every_figure_can_be_had() -> None:
    figures = [
        replay_fold.fold_rate(MADE),
        replay_fold.ready_ms(MADE),
        replay_fold.state_at_s(MADE),
        replay_fold.step_ms(MADE, back=False),
        replay_fold.step_ms(MADE, back=True),
        replay_fold.film_mb(MADE),
        replay_fold.timeline_s(MADE),
        replay_fold.causes_s(MADE),
    ]
    assert all(figure > 0 for figure in figures)
