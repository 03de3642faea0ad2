"""Where rollouts come from, as a port: what is asked for, what is given, and who gives it.

A trainer asks for *groups*: some runs of one task, with one pool and one policy. It is given each
group when all of its runs have ended, or when it has waited long enough; a group may lack members,
and hold some that say nothing of the policy, which are marked. What is asked for has ids that
follow from the job and the group's key, so that whoever asks again, after a crash, is given what
has been done.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Final, Literal, Protocol

import msgspec

from protocol import subjects
from protocol.actions import Pool
from protocol.budgets import Budget
from protocol.commands import Start
from protocol.decisions import PolicySpec, Task
from protocol.inbox import Signal, SignalKind
from protocol.state import RunState
from replay.chain import RunLog
from trainer.fold import fold
from trainer.records import Rollout

MEMBERS: Final = 8
"""Rollouts of a group if nothing is said: what group-relative advantages are usually taken over."""

TIMEOUT_S: Final = 600.0
"""Seconds from the beginning of a group's first run until it is given as it is; as long as a run
may take by its budget, if nothing is said."""

POLL_S: Final = 2.0
"""Seconds between two looks at whether anybody is there who would answer, see `gathered`."""

TELL: Final[SignalKind] = "answer"
"""The signal that a paused rollout is given, see `paused`."""

WHY: Final = "nobody is there who would resume a rollout"
"""Why it is given."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A group that is wanted: some runs of one task."""

    key: str
    """Its name within the job, such as ``12/3``: the third task of step 12."""
    task: Task
    pool: Pool
    policy: PolicySpec
    budget: Budget = Budget()
    members: int = MEMBERS

    def keys(self, job: str) -> tuple[str, ...]:
        """What names each of its runs, for whoever derives ids."""
        return tuple(f"{job}/{self.key}/{member}" for member in range(self.members))

    def starts(self, job: str) -> tuple[Start, ...]:
        """Its runs, as a conductor takes them, with ids that follow from job, key and member."""
        return tuple(
            Start(
                run=run_of(key),
                task=self.task,
                pool=self.pool,
                policy=self.policy,
                budget=self.budget,
                by=job,
            )
            for key in self.keys(job)
        )


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is over, or that nobody waits for any more."""

    log: RunLog
    """All of it."""
    blobs: Mapping[str, bytes]
    """What the log refers to, by hash: large values, records, and tokens."""
    rollout: Rollout
    """What the two make, see `trainer.fold`; its ``unscorable`` says whether and why it says
    nothing of its policy."""
    below: "tuple[Ended, ...]" = ()
    """The child runs, where a conductor was called as a worker."""

    @property
    def run(self) -> str:
        """Its id."""
        return self.log.run


def ended(log: RunLog, blobs: Mapping[str, bytes], below: Iterable[Ended] = ()) -> Ended:
    """A run that is over.

    Raises:
        NotFound: A blob is missing, or an archive, without which it can't be told what it was.
        InvalidData: Its tokens can't be read.
    """
    return Ended(log=log, blobs=blobs, rollout=fold(log, blobs), below=tuple(below))


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A group, as far as it got."""

    key: str
    """As it was asked for; of a log, a hash of what its runs have in common."""
    rollouts: tuple[Ended, ...]
    """In the order of their members, those that can't be scored included."""
    missing: tuple[str, ...] = ()
    """Runs that have not ended, or that nobody could begin."""
    versions: tuple[str, ...] = ()
    """Of the policy, all that its replies name, sorted. More than one where it was published while
    the group was at work: what is on-policy has one."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How a source is doing."""

    waiting: int = 0
    """Series of groups that were asked for, and are not used up; of a log, groups not read yet."""
    in_flight: int = 0
    """Runs that have begun, and not ended."""
    given: int = 0
    """Groups given so far."""
    rollouts: int = 0
    """Rollouts given so far."""
    unscorable: int = 0
    """Of those, the ones that say nothing of their policy."""
    error: str = ""
    """Why nothing comes any more; "" while it does."""

    def plus(self, group: Group) -> "Health":
        """The same, with a group more that was given."""
        return msgspec.structs.replace(
            self,
            given=self.given + 1,
            rollouts=self.rollouts + len(group.rollouts),
            unscorable=self.unscorable
            + sum(bool(each.rollout.unscorable) for each in group.rollouts),
        )


class RolloutSource(Protocol):
    """Gives groups of rollouts. Used by one thread; no method is a coroutine."""

    def start(self) -> None:
        """Begin.

        Raises:
            PodiumError: What it reads, or asks, can't be had.
        """
        ...

    def poll(self, timeout_s: float) -> list[Group]:
        """The groups that have been closed since, waiting for the first of them.

        Args:
            timeout_s: Seconds to wait at most, on the real clock.

        Returns:
            None, if there is none yet, or if nothing is left to come (see `done`).

        Raises:
            PodiumError: Nothing will come any more, and why.
        """
        ...

    @property
    def done(self) -> bool:
        """Whether all that it was asked for, or that it has, was given."""
        ...

    def publish(self, version: str) -> None:
        """Say that a version of the policy is current: what begins from here on is to be its.

        Raises:
            PodiumError: It can't answer.
        """
        ...

    @property
    def version(self) -> str:
        """The policy's version, as the last reply that was seen names it; "" before any."""
        ...

    def health(self) -> Health:
        """How it is doing."""
        ...

    def stop(self) -> None:
        """Give nothing any more. Runs that somebody else drives go on."""
        ...


class AskingSource(RolloutSource, Protocol):
    """A source that has runs begun."""

    def ask(self, asks: Iterable[Ask]) -> None:
        """Want groups, after those that were asked for before.

        They are taken one by one, as others are closed: an endless series is fine.
        """
        ...


def gathered(
    source: AskingSource,
    asks: Sequence[Ask],
    alive: Callable[[], None] = lambda: None,
    tell: Callable[[int], None] = lambda _: None,
) -> list[Group]:
    """All of some groups, in the order in which they are asked for.

    Args:
        source: Started, and asked for nothing else meanwhile.
        asks: Each with a key of its own.
        alive: Called while they are waited for: raises if nobody is there who would answer.
        tell: Told how many are there, as they come.

    Raises:
        PodiumError: Nothing will come any more, and why.
    """
    source.ask(asks)
    found: dict[str, Group] = {}
    while len(found) < len(asks):
        alive()
        found |= {group.key: group for group in source.poll(POLL_S)}
        tell(len(found))
    return [found[ask.key] for ask in asks]


def run_of(key: str) -> str:
    """The id of the run of a key, in a log of one shard; see `podium.Client.run_of`."""
    digest = sha256(key.encode()).digest()
    return subjects.run_id(digest[:8], 0)


def paused(log: RunLog, state: RunState) -> Literal["tell", "wait", "give_up"]:
    """What is done about a rollout that is paused, since nobody is there who would resume it.

    It is told once to answer with what it has: a policy that goes round in circles would else be
    left out of its own training. One that pauses again can't be asked.

    Args:
        log: The run.
        state: It, folded; its phase is ``paused``.
    """
    told = [
        entry.hash
        for entry in log.inbox
        if isinstance(entry.message, Signal) and entry.message.kind == TELL
    ]
    if not told:
        return "tell"
    return "give_up" if told[-1] in state.signals else "wait"


def versions_of(rollouts: Iterable[Rollout]) -> tuple[str, ...]:
    """The versions of the policy that the replies of some rollouts name, sorted."""
    return tuple(sorted({step.version for each in rollouts for step in each.steps} - {""}))


def last_version(rollouts: Iterable[Rollout], before: str = "") -> str:
    """The version that the last reply of some rollouts names; ``before`` where none does."""
    said = [step.version for each in rollouts for step in each.steps if step.version]
    return said[-1] if said else before
