"""How many steps of a run had to wait for each other: what parallelism saves, whatever the clock.

PARL (Kimi K2.5) calls them critical steps. A step is a call. One that began when another had
settled comes after it: it waited for it, or there was no place, or the policy was asked in between.
Calls that were at work together are one step.
"""

from collections.abc import Iterable

from protocol.events import AnyEvent, AttemptStarted, CallSettled


def critical_steps(events: Iterable[AnyEvent]) -> int:
    """The calls of the longest series of calls each of which began when the one before was over."""
    steps: dict[str, int] = {}
    over = 0
    for event in events:
        match event:
            case AttemptStarted(call=call) if call not in steps:
                steps[call] = over + 1
            case CallSettled(call=call) if call in steps:
                over = max(over, steps[call])
            case _:
                pass
    return max(steps.values(), default=0)
