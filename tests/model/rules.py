"""The rules of ownership as switches, and a mix: a scenario with so many faults of each kind."""

from typing import Final, NamedTuple


class Rules(NamedTuple):
    """One switch per rule; all on is the protocol. What happens without a rule stands beside it."""

    one_exact_subject: bool = True
    """Off: the server takes an append whatever it expected, as with a wildcard condition on R3."""
    read_tail_after_refusal: bool = True
    """Off: a refused append is sent again on the sequence that the refusal names."""
    retry_identical_bytes: bool = True
    """Off: a retry is decided anew, and any commit of one's own epoch is taken for it."""
    fence_only_after_activation: bool = True
    """Off: a refused activation fences too."""
    fenced_touches_nothing: bool = True
    """Off: a fenced conductor acknowledges the task, or goes on with its heartbeats."""
    reread_after_freeze: bool = True
    """Off: a conductor that was frozen goes on where it stopped."""
    look_replaces_hint: bool = True
    """Off: the inbox is read at activation only; later messages come by hint alone."""
    look_before_timeout: bool = True
    """Off: a deadline settles what was not heard of, without a look."""
    report_before_ack: bool = True
    """Off: a worker acknowledges its call first, then stores the report."""
    worker_looks_for_own_report: bool = True
    """Off: a call that comes again is worked on again."""
    effects_before_task_ack: bool = True
    """Off: the task of an ended run is acknowledged before its end effects."""
    signal_before_continue: bool = True
    """Off: the Continue task is queued first, then the signal is stored."""
    redispatch: bool = True
    """Off: an attempt is dispatched once, by the conductor that started it."""
    signal_until_taken: bool = True
    """Off: a refused Continue is taken to mean that somebody will read the signal anyway."""
    look_after_pause: bool = True
    """Off: a conductor that gave a paused run back doesn't look whether a signal came meanwhile."""
    costly_work_once: bool = True
    """Off: a call that another worker held before, and may have worked on, is worked on again."""
    costly_work_looks_first: bool = True
    """Off: a call that is neither marked nor delivered before is worked on without a look."""
    sweep: bool = True
    """Off: nobody queues a begun run whose task message is gone."""


ALL: Final = Rules()


class Faults(NamedTuple):
    """How many of each may happen in one history."""

    crash: int = 0
    """Conductors that lose their memory and start again."""
    freeze: int = 0
    """Conductors that stop for longer than a lease and go on with their memory."""
    lapse: int = 0
    """Leases that expire although the holder lives and never was late (heartbeats lost)."""
    lost: int = 0
    """Appends stored, and task acknowledgements not, whose answer or message is lost."""
    late: int = 0
    """Appends and task acknowledgements that arrive after their sender gave up on them."""
    hint: int = 0
    """Hints that nobody hears."""
    worker_crash: int = 0
    worker_freeze: int = 0
    infra: int = 0
    """Attempts that end in an infrastructure fault."""
    timeout: int = 0
    """Deadlines that pass."""
    gone: int = 0
    """Call messages that vanish from the queue (their TTL)."""


class Mix(NamedTuple):
    """A scenario of a size that can be visited completely."""

    name: str
    faults: Faults
    child: bool = False
    """Whether the run's one call is answered by a child run, which makes a call of its own."""
    signals: tuple[str, ...] = ()
    """What a person says to the root run, one after the other, at any time or never."""
    endpoint: bool = False
    """Whether the policy's reply takes a turn of its own, instead of coming at once."""
    quick: bool = False
    """Whether activations follow each other so fast that they count as idle ones."""
    conductors: int = 2
    workers: int = 2
