"""The bill of a run: what was spent, on whom, counted or not.

A projection over all reports and replies: one that came too late, or lost to another attempt, was
paid for, too. Of a child run, the bill of the family has the lines of what it did in place of the
line of its call.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from protocol.actions import NOTHING, UNKNOWN_USAGE, Report, Spend, Usage
from protocol.events import PolicyReplied
from replay.chain import RunLog
from replay.history import entries

POLICY: Final = "(policy)"
"""Who is billed for what the policy said."""


class Item(NamedTuple):
    """What was spent on one worker, or on the policy."""

    who: str
    kind: str
    """The worker's kind; ``policy``."""
    times: int = 0
    """Reports, or replies."""
    spend: Spend = NOTHING
    """Tokens and micro-dollars; of a child run, its calls, too."""
    usage: Usage = UNKNOWN_USAGE
    """The tokens told apart, of those who do."""
    time_ms: int = 0
    """Milliseconds of work, that of calls that ran side by side added up."""

    def plus(self, spend: Spend, usage: Usage, time_ms: int) -> "Item":
        """With one report or reply more."""
        read, written = self.usage.input + usage.input, self.usage.output + usage.output
        return Item(
            self.who,
            self.kind,
            self.times + 1,
            self.spend + spend,
            Usage(read, written),
            self.time_ms + time_ms,
        )


def bill(logs: Iterable[RunLog]) -> list[Item]:
    """What was spent on each, the policy first, then the workers as their pools name them.

    Args:
        logs: A run; or a run and all below it, then without the calls that those answer. What a
            fork shares with its origin is on its origin's bill.
    """
    family = list(logs)
    below = {
        (parent.run, parent.call, parent.attempt)
        for log in family
        if (parent := log.state().parent) is not None
    }
    found: dict[str, Item] = {POLICY: Item(POLICY, "policy")}
    for log in family:
        state = log.state()
        for spec in state.pool.workers:
            found.setdefault(spec.name, Item(spec.name, spec.kind))
        for entry in entries(log):
            if entry.run == log.run and isinstance(said := entry.event, PolicyReplied):
                found[POLICY] = found[POLICY].plus(said.spend, said.usage, said.latency_ms)
        seen: set[str] = set()
        for each in log.inbox:
            report = each.message
            if not isinstance(report, Report) or each.hash in seen:
                continue
            seen.add(each.hash)
            known = state.calls.get(report.call)
            if known is None or not 1 <= report.attempt <= known.attempt:
                continue  # nobody has asked for it
            if (log.run, report.call, report.attempt) in below:
                continue
            who = known.call.worker
            item = found.get(who) or Item(who, "")
            found[who] = item.plus(report.spend, report.usage, report.latency_ms)
    return [item for item in found.values() if item.times]


def total(items: Iterable[Item]) -> Item:
    """All of it."""
    whole = Item("total", "")
    for item in items:
        summed = whole.plus(item.spend, item.usage, item.time_ms)
        whole = summed._replace(times=whole.times + item.times)
    return whole
