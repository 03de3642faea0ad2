"""Runs that rest: whether one does, and what is said to whoever waits for it."""

from actors.waking import wakes
from podium.render import RunTree
from protocol.decisions import asked
from protocol.errors import Busy, PodiumError, Unreachable
from replay.chain import RunLog


def paused(log: RunLog) -> bool:
    """Whether the run rests, and nothing in its inbox will wake it."""
    state = log.state()
    return state.phase == "paused" and not wakes(log, state)


def pause_error(run: RunTree) -> PodiumError:
    """What is said of a run that has paused instead of ending."""
    match run.paused:
        case "policy_unavailable":
            own = asked(run.policy).startswith("python:")
            anew = (
                " (podium down, podium up where a deployment stands: it keeps what it has loaded)"
            )
            return Unreachable(
                f"run {run.run} is paused: its policy {run.policy} can't be asked: {run.detail}",
                hint=f"mend that{anew if own else ''}, then: podium runs resume {run.run}",
            )
        case "budget":
            return Busy(
                f"run {run.run} is paused: its budget is used up ({run.detail})",
                hint=f"let it spend more: podium runs extend {run.run} --rounds 4",
            )
        case "person":
            return Busy(
                f"run {run.run} is paused: it waits for a person ({run.detail})",
                hint=f"see the questions: podium answer   then: podium answer {run.run} ANSWER",
            )
        case "kills_host":
            return Busy(
                f"run {run.run} is paused: {run.detail}",
                hint=f"look at its last events: podium runs show {run.run} --events",
            )
        case _:
            return Busy(
                f"run {run.run} is paused ({run.detail})",
                hint=f"let it go on: podium runs resume {run.run}",
            )
