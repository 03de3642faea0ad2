"""The action space: one signature for everything that a run can call, one normalised result.

Agents, tools, people and other conductors are all a `WorkerSpec`; what is asked of one is a `Call`;
what comes back is a `Report`, with one of four statuses (ParaManager, arXiv 2604.17009) and the
party at fault.
"""

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

Json: TypeAlias = Any
"""A JSON value: what ``json.loads`` can give."""

Status: TypeAlias = Literal["OK", "PARSE_ERR", "EXEC_ERR", "TIMEOUT"]
"""How a call ended. The set is closed: a policy learns these four and no others."""

Fault: TypeAlias = Literal["none", "policy", "worker", "infrastructure"]
"""Who is at fault. A policy is scored for its own faults only; an infrastructure fault makes a
rollout unscorable."""

Kind: TypeAlias = Literal["tool", "agent", "conductor", "person"]
"""What stands behind a worker. A conductor's calls become runs of their own; a person's are
answered in the run's inbox. Both need no actor that hosts them."""

UNHOSTED: Final[frozenset[Kind]] = frozenset({"conductor", "person"})

MAX_COUNT: Final = 10**15
"""The largest count: sums of nine of them are exact in every JSON reader (2**53)."""

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
"""A whole number that nothing can make negative, and whose sums stay exact in every JSON reader."""

ANY_OBJECT: Final[dict[str, Json]] = {"type": "object"}
"""The schema of a worker that declares no parameters of its own."""


MICRO: Final = 1_000_000
"""Micro-dollars of one US dollar: the unit of every recorded cost."""


class Spend(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What was, or may be, spent. Integers only: sums are exact on every machine."""

    tokens: Count = 0
    """Tokens read and written by models."""
    cost: Count = 0
    """Micro-dollars, see `MICRO`."""
    calls: Count = 0
    """Attempts: those of a child run; the attempt itself is counted by the run that made it."""

    def __add__(self, other: "Spend") -> "Spend":
        return Spend(self.tokens + other.tokens, self.cost + other.cost, self.calls + other.calls)

    def __sub__(self, other: "Spend") -> "Spend":
        return Spend(self.tokens - other.tokens, self.cost - other.cost, self.calls - other.calls)


NOTHING: Final = Spend()


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """The tokens of a model's replies, told apart; for those who look. Budgets go by `Spend`."""

    input: Count = 0
    """Tokens read."""
    output: Count = 0
    """Tokens written."""


UNKNOWN_USAGE: Final = Usage()
"""Of what says nothing of it."""


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that a run needs to know of one worker.

    Recorded with the run, never looked up again.
    """

    name: str
    """Unique in its pool; matches ``limits.NAME_PATTERN``."""
    kind: Kind = "tool"
    description: str = ""
    """What it does, as the policy reads it."""
    parameters: dict[str, Json] = msgspec.field(default_factory=lambda: dict(ANY_OBJECT))
    """JSON Schema (draft 2020-12) of the arguments; always of type object."""
    returns: dict[str, Json] = {}
    """JSON Schema of its results; {} for any. A result that does not fit is a failure of it."""
    adapter: str = ""
    """How it is hosted, such as ``function:my_module:my_tool``; for the host, not for the
    policy."""
    options: dict[str, Json] = {}
    """What its adapter needs besides: an endpoint, a model, a role prompt. Secrets are references,
    never values."""
    secrets: tuple[str, ...] = ()
    """Names of the secrets that may be resolved for it, in its options and in its arguments."""
    reserve: Spend = NOTHING
    """The most that one attempt may spend: reserved when it starts, released by its report."""
    concurrency: int = 16
    """Attempts that one replica works on at a time."""
    replicas: int = 1
    """Actors that host it."""
    timeout_ms: int = 60_000
    """Milliseconds of work that an attempt may take."""
    wait_ms: int = 300_000
    """Milliseconds that an attempt may wait in the queue for a free slot."""
    attempts: int = 2
    """Tries of one call; a further one is made only after an infrastructure fault."""
    hedge: bool = False
    """Whether a call that takes far longer than others may be tried a second time meanwhile: only
    where doing it twice harms nobody."""
    host: str = ""
    """The process that hosts it together with all workers of the pool that name the same, so that
    they can share a session; empty for a process of its own."""
    queue: str = ""
    """Where its calls wait, if not under its name: a deployment hosts several definitions of one
    name while runs have the earlier ones, see `registry`."""

    @property
    def place(self) -> str:
        """Where its calls wait: the token in their subjects, and the name of its actors."""
        return self.queue or self.name


class Pool(msgspec.Struct, frozen=True):
    """The workers that a run may use, in the order in which a policy is shown them."""

    workers: tuple[WorkerSpec, ...]

    def get(self, name: str) -> WorkerSpec | None:
        """The worker of that name, or None."""
        return next((worker for worker in self.workers if worker.name == name), None)

    def by_name(self) -> dict[str, WorkerSpec]:
        """The workers by name; the first of a name counts, as in `get`."""
        found: dict[str, WorkerSpec] = {}
        for worker in self.workers:
            found.setdefault(worker.name, worker)
        return found


class Call(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One subtask given to one worker."""

    id: str
    """``<round>-<index>``, unique in its run."""
    worker: str
    arguments: dict[str, Json]
    after: tuple[str, ...] = ()
    """Calls that must have settled before this one starts."""
    sees: tuple[str, ...] = ()
    """Calls whose output the worker is shown."""
    ref: str = ""
    """The policy's own id of the call (OpenAI's ``tool_call_id``), echoed when its result is
    shown."""


class BlobRef(msgspec.Struct, frozen=True, gc=False):
    """A value too large for a message: where its encoded JSON is, by content."""

    sha256: str
    """Hex digest of the bytes."""
    size: int
    """Bytes."""


class Report(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="report"):
    """What a worker says of one attempt. Stored in the run's inbox before anybody hears of it."""

    run: str
    call: str
    attempt: Count
    status: Status
    fault: Fault = "none"
    value: Json = None
    """The result, or the error's text. None where ``blob`` names it."""
    blob: BlobRef | None = None
    spend: Spend = NOTHING
    latency_ms: Count = 0
    """Milliseconds of work, queueing not counted."""
    by: str = ""
    """The replica that worked, for the person who looks for it."""
    record: Json = None
    """What an agent's attempt exchanged with its model, so that it can be reproduced; no rule and
    no policy looks at it. None where ``record_blob`` names it, or there is nothing."""
    record_blob: BlobRef | None = None
    usage: Usage = UNKNOWN_USAGE
    """Of an agent: the tokens in ``spend``, told apart, where it knows."""
    deliveries: Count = 1
    """Times that its queue had delivered the attempt: more than one where a replica that had it was
    gone before it could report."""

    @property
    def blobs(self) -> tuple[BlobRef, ...]:
        """All that it refers to: what has to be kept wherever it is kept."""
        return tuple(ref for ref in (self.blob, self.record_blob) if ref is not None)
