"""A run's log, folded into a `Rollout`: pure, in one go or in pieces, with the same bytes.

::

    Fold(run).take(log, blobs)    as many events as there are, or up to one
    Fold.rollout()                what they make
    read(event_log, run)          the edge: a run is read, its blobs are fetched, and it is folded

Order is the log's: calls stand as they were asked for and turns as they were replied to, whenever
their reports came. A policy is shown what `protocol.views` makes of the state in which it replied,
which is how a prompt is verified, too.
"""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from itertools import islice
from typing import Final

import msgspec

from protocol.actions import NOTHING, BlobRef, Json, Report, Spend
from protocol.codec import HASH_CHARS, decode_value
from protocol.decisions import NO_ROOM, WRITTEN, Rejection, View
from protocol.errors import NotFound
from protocol.events import (
    AnswerGiven,
    AnyEvent,
    AttemptStarted,
    CallSettled,
    DecisionRejected,
    PolicyAsked,
    PolicyReplied,
    ReportNoted,
    RoundPlanned,
    RunForked,
    RunResumed,
)
from protocol.inbox import OURS, Label, Reward
from protocol.sampled import Sampled
from protocol.state import RunState
from protocol.transitions import apply
from protocol.views import observation, view
from replay.chain import RunLog, archived_before, hash_at
from replay.critical import critical_steps
from replay.history import Entry, entries, reports
from replay.log import EventLog
from replay.tokens import Tokens, sampled, whole
from replay.tokens import decode as decode_arrays
from trainer.records import Made, Rollout, Step, Unscorable

Blobs = Mapping[str, bytes]
"""What stands outside the log, by its SHA-256."""

_encode: Final = msgspec.json.Encoder(order="deterministic").encode


def fold(log: RunLog, blobs: Blobs | None = None) -> Rollout:
    """The rollout of a run, as far as its log goes.

    Args:
        log: The run, with its origin if it is a fork.
        blobs: All that `blobs_of` names.

    Raises:
        NotFound: The run has not begun, is archived where it can't be read, or is a fork of one; or
            a blob is not given whose value the policy was shown.
        InvalidData: Its tokens can't be read.
    """
    made = Fold(log.run)
    made.take(log, blobs)
    return made.rollout()


def blobs_of(log: RunLog) -> Iterator[BlobRef]:
    """What of a run stands in blobs: values of its reports, and its tokens."""
    for report in reports(log).values():
        if report.blob is not None:
            yield report.blob
    for _, each in sampled(log.events()):
        if each.blob is not None:
            yield each.blob


async def read(log: EventLog, run: str) -> Rollout:
    """Read a run, with what of it stands in blobs, and fold it.

    Raises:
        NotFound, InvalidData: See `fold`.
        Unreachable: No answer in time.
    """
    return await read_fold(log, await log.read(run))


async def read_fold(log: EventLog, found: RunLog) -> Rollout:
    """As `read`, of a run that was read."""
    blobs: dict[str, bytes] = {}
    for ref in blobs_of(found):
        try:
            blobs[ref.sha256] = await log.get_blob(ref)
        except NotFound:  # which matters only if it was used, as the fold knows
            continue
    return fold(found, blobs)


class _Said:
    """A reply of the policy's on the way to a `Step`."""

    __slots__ = ("event", "own", "rejection", "round", "tokens", "view")

    def __init__(self, event: PolicyReplied, shown: View, own: bool) -> None:
        self.event, self.view, self.own = event, shown, own
        self.tokens: Tokens | None = None
        self.rejection: Rejection | None = None
        self.round = 0


class Fold:
    """A run on the way to a rollout.

    One that was lost is made again from the log, and gives the same bytes.

    Args:
        run: Its id.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self.events = 0
        """How many have been taken."""
        self.head = ""
        """Hash of the commit in which the last of them stands."""
        self._state = RunState()
        self._at = 0
        self._said: list[_Said] = []
        self._tokens: dict[int, Tokens] = {}
        self._tried: list[AnyEvent] = []
        """What `critical_steps` looks at."""
        self._spent: dict[str, Spend] = {}
        self._reports: dict[str, Report] = {}
        self._values: dict[str, Json] = {}
        self._lost: set[str] = set()
        self._heard: tuple[tuple[Reward, ...], tuple[Label, ...]] = ((), ())
        self._forked: RunForked | None = None
        self._paused_ms = 0
        self._composed = self._answered = False
        self._unheard = False
        """Whether the policy has not said anything since it was asked."""

    def take(self, log: RunLog, blobs: Blobs | None = None, until: int | None = None) -> None:
        """Take the events that were not taken yet; none after the run's end.

        Args:
            log: The run, as long as before or longer.
            blobs: What `blobs_of` names.
            until: The number of the last event to be taken.

        Raises:
            NotFound, InvalidData: See `fold`.
        """
        _check(log)
        self._letters(log, blobs or {})
        last: Entry | None = None
        for entry in islice(entries(log), self.events, until):
            if self._state.phase == "ended":
                break
            self._take(entry.event, entry.run == log.run, blobs or {})
            last = entry
            self.events += 1
            self._at = entry.at
        if last is not None:
            owner = next(each for each in log.lineage() if each.run == last.run)
            self.head = hash_at(owner, last.n)

    def _letters(self, log: RunLog, blobs: Blobs) -> None:
        """The inbox: values of reports, and what others said of the run."""
        for known, report in reports(log).items():
            if known in self._values:
                continue
            self._reports[known] = report
            if report.blob is None:
                self._values[known] = report.value
            elif (data := blobs.get(report.blob.sha256)) is not None:
                self._values[known] = decode_value(data)
                self._lost.discard(known)
            else:
                self._lost.add(known)
        said = [entry.message for entry in log.inbox]
        self._heard = (
            tuple(each for each in said if isinstance(each, Reward)),
            tuple(each for each in said if isinstance(each, Label) and each.key not in OURS),
        )

    def _take(self, event: AnyEvent, own: bool, blobs: Blobs) -> None:
        s = self._state
        match event:
            case PolicyReplied():
                self._replied(event, own, blobs)
            case DecisionRejected() if self._said and self._said[-1].event.turn == event.turn:
                self._said[-1].rejection = Rejection(event.reason, event.detail)
            case RoundPlanned() if self._said and self._said[-1].event.turn == s.turn:
                self._said[-1].round = event.round
            case AttemptStarted():
                self._tried.append(event)
            case CallSettled():
                self._tried.append(event)
                self._spend(event.call, event.spend)
            case ReportNoted():
                self._spend(event.call, event.spend)
            case AnswerGiven():
                self._answered = not self._composed
            case PolicyAsked(asker="policy"):
                self._unheard = True
            case RunForked():
                self._forked, self._paused_ms = event, 0
            case RunResumed():
                self._paused_ms += max(0, event.at - s.paused_at)
            case _:
                pass
        apply(s, event)

    def _spend(self, call: str, spend: Spend) -> None:
        if spend != NOTHING:
            self._spent[call] = self._spent.get(call, NOTHING) + spend

    def _replied(self, event: PolicyReplied, own: bool, blobs: Blobs) -> None:
        asked = self._state.asked
        composed = asked is not None and asked.asker == "composer"
        self._composed = composed and asked is not None and bool(asked.limited_by)
        if composed:
            return
        if event.status != "OK":
            # Who has said so much that nothing more fits could be asked: it went on for too long.
            spoke = any(said.own for said in self._said)
            self._unheard &= not (spoke and event.finish == NO_ROOM)
            return
        self._unheard = False
        if (known := event.sampled) is not None:
            stored = None if known.blob is None else blobs.get(known.blob.sha256)
            arrays = known.arrays if stored is None else decode_arrays(stored)
            self._tokens[event.turn] = whole(event.turn, known, arrays, self._tokens)
        if event.version == WRITTEN:
            return  # what a worker wrote; the policy was not asked
        self._check_values()
        shown = view(self._state, self._values, asked.limited_by if asked else "")
        said = _Said(event, shown, own)
        if known is not None:
            said.tokens = self._tokens[event.turn]
        self._said.append(said)

    def _check_values(self) -> None:
        """Raise `NotFound` where the policy was shown a value that can't be had any more."""
        if not self._lost:
            return
        for name, call in self._state.calls.items():
            if lost := self._lost & {call.report, call.late}:
                raise NotFound(
                    f"run {self.run}: the value of call {name} (report {min(lost)}) stands in a "
                    "blob that is not there",
                    hint=f"podium verify {self.run} says what is damaged",
                )

    # ------------------------------------------------------------------------- what it makes

    def rollout(self) -> Rollout:
        """What the events so far make. Raises `NotFound` if the run has not begun."""
        s = self._state
        if not self.events:
            raise NotFound(f"run {self.run} has not begun", hint="list the runs: podium runs")
        self._check_values()
        steps = tuple(self._steps())
        rewards, labels = self._heard
        return Rollout(
            run=self.run,
            group=self._group(steps),
            task=s.task,
            pool=s.pool,
            policy=s.policy,
            budget=s.budget,
            parent=s.parent,
            origin=s.origin,
            steps=steps,
            outcome=s.outcome,
            answer=s.answer,
            answered=self._answered,
            limited_by=s.limited_by,
            unscorable=self._unscorable(),
            rounds=s.round,
            critical_steps=critical_steps(self._tried),
            spend=s.spent,
            elapsed_ms=self._elapsed(),
            started_at=s.started_at,
            rewards=rewards,
            labels=labels,
            events=self.events,
            head=self.head,
        )

    def _steps(self) -> Iterator[Step]:
        rounds = {turn.round: turn for turn in self._state.turns if turn.round}
        for said in self._said:
            event, found = said.event, said.tokens
            turn = rounds.get(said.round)
            names = turn.calls if turn is not None else ()
            left = turn.left if turn is not None else ()
            yield Step(
                turn=event.turn,
                own=said.own,
                view=said.view,
                text=event.text,
                decision=event.decision,
                rejection=said.rejection,
                calls=tuple(self._made(name, name in left) for name in names),
                prompt=found.prompt if found else b"",
                output=found.output if found else b"",
                logprobs=found.logprobs if found else b"",
                sampled=_bare(found) if found else None,
                version=event.version,
                usage=event.usage,
                spend=event.spend,
                latency_ms=event.latency_ms,
            )

    def _made(self, name: str, left: bool) -> Made:
        known = self._state.calls[name]
        seen = None if left else observation(self._state, name, self._values)
        report = self._reports.get(known.report)
        return Made(
            call=known.call,
            status=seen.status if seen is not None else None,
            fault=seen.fault if seen is not None else "none",
            value=seen.value if seen is not None else None,
            spend=self._spent.get(name, NOTHING),
            latency_ms=report.latency_ms if report else 0,
            attempts=known.attempt,
        )

    def _group(self, steps: tuple[Step, ...]) -> str:
        s, forked = self._state, self._forked
        version = next((step.version for step in steps if step.own), "")
        parts: tuple[Json, ...] = (s.task, s.pool, s.policy, version)
        if forked is not None:
            origin = forked.origin
            parts += (origin.run, origin.events, origin.hash, forked.reopened, forked.edits)
        return sha256(_encode(parts)).hexdigest()[:HASH_CHARS]

    def _elapsed(self) -> int:
        s = self._state
        end = s.ended_at or self._at
        rest = max(0, end - s.paused_at) if s.pause_reason else 0
        return max(0, end - s.started_at - self._paused_ms - rest)

    def _unscorable(self) -> Unscorable:
        s = self._state
        if not s.outcome:
            return "open"
        if s.outcome == "cancelled":
            return "cancelled"
        if self._answered or s.final == "rejections":
            return ""
        if self._unheard:
            return "policy_unreachable"
        if any(call.fault == "infrastructure" for call in s.calls.values()):
            return "infrastructure"
        return ""


def _bare(found: Tokens) -> Sampled:
    """How tokens were drawn, without them."""
    return msgspec.structs.replace(found.sampled, arrays=None, blob=None)


def _check(log: RunLog) -> None:
    """Raise `NotFound` if a log is not the whole of its run."""
    if archived_before(log):
        raise NotFound(
            f"run {log.run} is archived in {log.state().archived}, which is not read here",
            hint="name that archive's folder or bucket: [archive] url in podium.toml",
        )
    if log.set_aside["origin"]:
        why = next((each.why for each in log.aside if each.where in ("origin", "archived")), "")
        raise NotFound(
            f"run {log.run} is a fork, and what it shares can't be had: {why}",
            hint=f"podium verify {log.run} says what is damaged",
        )
