"""The mixes that are visited, and for each rule the mix that shows what it is for."""

from typing import Final, NamedTuple

from tests.model.broker import (
    DEAF_TIMEOUT,
    FALSE_BELIEF,
    FENCED_ACTS,
    FENCED_APPENDS,
    FOREIGN_APPEND,
    OVERRUN,
    STUCK,
    TWO_COUNT,
    UNTOLD,
)
from tests.model.rules import Faults, Mix

BOTH: Final = ("pause", "resume")

MIXES: Final = (
    Mix("appends", Faults(crash=2, lost=1, late=1, hint=1)),
    Mix("freeze", Faults(crash=1, freeze=1, lost=1, late=1)),
    Mix("lapse", Faults(crash=1, lapse=1, late=1)),
    Mix("retry", Faults(crash=1, worker_crash=1, infra=1, hint=1, gone=1)),
    Mix("workers", Faults(worker_freeze=1, worker_crash=1, infra=1, timeout=1, hint=1)),
    Mix("endpoint", Faults(crash=2, freeze=1), endpoint=True),
    Mix("killer", Faults(crash=2, freeze=1), quick=True),
    Mix("cancel", Faults(crash=1, lost=1, late=1, hint=1), signals=("cancel",)),
    Mix("pause", Faults(crash=1, hint=1), signals=BOTH),
    Mix("pause-late", Faults(crash=1, late=1), signals=BOTH, conductors=1, workers=1),
    Mix("child", Faults(crash=1, lost=1, timeout=1), child=True),
    Mix("child-cancel", Faults(crash=1, hint=1), child=True, signals=("cancel",), workers=1),
)
"""Visited by ``make test``; half a minute in all."""

SLOW: Final = (
    Mix("pause-late-2", Faults(crash=1, late=1), signals=BOTH, workers=1),
    Mix("freeze-2", Faults(crash=1, freeze=2, lost=1, late=1)),
    Mix("lapse-2", Faults(crash=2, freeze=1, lapse=1, lost=1, late=1)),
    Mix("pause-freeze", Faults(crash=1, freeze=1), signals=BOTH),
    Mix("child-late", Faults(crash=1, late=1, hint=1), child=True),
    Mix("child-freeze", Faults(crash=1, freeze=1), child=True, workers=1),
)
"""Visited by ``make test-all``."""


class Removal(NamedTuple):
    """Which hole is there without some rules."""

    without: tuple[str, ...]
    mix: str
    hole: str
    ignore: tuple[str, ...] = ()
    """Holes to look past."""


REMOVALS: Final = (
    Removal(("one_exact_subject",), "two-owners", FENCED_APPENDS),
    Removal(
        ("one_exact_subject",), "two-owners", TWO_COUNT, (FOREIGN_APPEND, FENCED_APPENDS, OVERRUN)
    ),
    Removal(("read_tail_after_refusal",), "lapse", FENCED_APPENDS),
    Removal(("retry_identical_bytes",), "cancel", FALSE_BELIEF),
    Removal(("fenced_touches_nothing",), "freeze", FENCED_ACTS),
    Removal(("fenced_touches_nothing", "sweep"), "freeze", STUCK, (FENCED_ACTS,)),
    Removal(("reread_after_freeze",), "freeze", FENCED_ACTS),
    Removal(("look_replaces_hint",), "appends", STUCK),
    Removal(("look_before_timeout",), "workers", DEAF_TIMEOUT),
    Removal(("report_before_ack",), "retry", OVERRUN),
    Removal(("report_before_ack", "redispatch"), "worker-crash", STUCK),
    Removal(("worker_looks_for_own_report",), "retry", OVERRUN),
    Removal(("costly_work_once",), "workers", OVERRUN),
    Removal(("costly_work_looks_first",), "lapse", OVERRUN),
    Removal(("effects_before_task_ack",), "child-cancel", UNTOLD),
    Removal(("signal_before_continue",), "pause", STUCK),
    Removal(("redispatch",), "appends", STUCK),
    Removal(("signal_until_taken",), "pause", STUCK),
    Removal(("signal_until_taken", "look_after_pause"), "hint-pause", STUCK),
    Removal(("sweep",), "pause-late", STUCK),
)
"""What each rule is for, shown by its absence."""

EXTRA: Final = (
    Mix("two-owners", Faults(lapse=1)),
    Mix("worker-crash", Faults(worker_crash=1)),
    Mix("hint-pause", Faults(hint=1), signals=BOTH),
)
"""Mixes that only removals need."""

REDUNDANT: Final = (
    (("fence_only_after_activation",), (*MIXES[:4], *MIXES[5:8])),
    (("look_after_pause",), MIXES[7:10]),
    (("redispatch",), (EXTRA[1],)),
    (("signal_until_taken",), (EXTRA[2],)),
)
"""Removals that leave no hole in the mixes beside them: another rule does the same, or it only
saves time."""

BY_NAME: Final = {mix.name: mix for mix in (*MIXES, *SLOW, *EXTRA)}
