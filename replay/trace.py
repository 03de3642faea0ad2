"""The trace of a run as a projection of its log: the same log gives the same spans, every time.

::

    invoke_workflow {policy}             a run, from its first commit to its end
    ├─ plan conductor                    a question to the policy
    │  └─ chat {model}                   the model's part of it, where the policy is a model
    ├─ execute_tool {worker}             an attempt; each further one is a span of its own
    ├─ invoke_agent {worker}             an attempt of an agent
    │  ├─ chat {model}                   one of its turns, where it has tools of its own
    │  └─ execute_tool {tool}            a use of one of these
    └─ invoke_agent {worker}             an attempt of a conductor
       └─ invoke_workflow {policy}       the child run that answers it

A fork has a trace of its own: what it shares is in its origin's, to which it is linked. A run that
grows long, or waits long, goes on in another trace, with a span of its own there; the two are
linked both ways (`protocol.traces.Segment`).

A `Projector` takes commits one by one and gives the spans that have ended, so an export of a whole
log and one that follows the log live give the same. What only a report knows (how long the work
took, who did it) is read from the report that counts. A run that goes on has no span of its own
yet, and its attempts that are open have none.
"""

from collections.abc import Iterable
from itertools import islice
from sys import getsizeof

import msgspec

from protocol import semconv
from protocol.actions import BlobRef, Report, Spend
from protocol.codec import Commit
from protocol.decisions import WRITTEN
from protocol.events import (
    AnswerGiven,
    AnyEvent,
    AttemptStarted,
    BudgetExtended,
    CallSettled,
    DecisionRejected,
    PolicyAsked,
    PolicyReplied,
    ReportNoted,
    RoundClosed,
    RoundPlanned,
    RunActivated,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunForked,
    RunPaused,
    RunResumed,
    RunStarted,
    SignalReceived,
)
from protocol.traces import FIRST, Context, Segment, attempt_id, parse, run_context, span_id
from replay.chain import RunLog
from replay.spans import Attributes, Link, Span, in_order
from replay.trace_parts import (
    Begun,
    Called,
    Offered,
    Party,
    Question,
    Tried,
    attempt,
    chat,
    failed,
    lost,
    message,
    offered,
    party,
    plan,
    turns,
)
from replay.trace_root import Root
from replay.trace_scene import Scene, spent
from replay.trace_turns import NO_RECORDS, Records, in_blob


class Projector:
    """One run's spans, as they end.

    Args:
        run: Its id.
        content: Whether what users and agents wrote is told, too.
        messages: Whether each attempt has the spans of its message: published, processed.
    """

    def __init__(self, run: str, *, content: bool = False, messages: bool = False) -> None:
        self.ended = False
        self.number = 0
        """Events seen so far; the number of the last one."""
        self._messages = messages
        self._scene = Scene(run, run_context(run), content)
        self._root = Root()
        self._segment = FIRST
        self._traceparent = self._pause = ""
        self._workers: dict[str, Party] = {}
        self._offered: tuple[Offered, ...] = ()
        self._replied = 0
        self._question: Question | None = None
        self._unanswered: tuple[Question, Link] | None = None
        """The last question, while none has got a reply that can be used since."""
        self._calls: dict[str, Called] = {}
        self._last: dict[str, Context] = {}
        """Of each call, the span of its last attempt that is over."""
        self._open: dict[tuple[str, int], Begun] = {}
        self._spent = Spend()
        self._attempts = self._turns = self._chats = 0
        self._limited = self._said = self._answer = ""
        self._answered = 0
        """Number of the event that gave the answer."""
        self._done: list[Span] = []

    @property
    def held(self) -> int:
        """Bytes of what users and agents wrote, kept until it is told; 0 without content."""
        if not self._scene.content:
            return 0
        calls: tuple[Offered | Called, ...] = (*self._offered, *self._calls.values())
        kept = (*self._root.contents, self._said, self._answer)
        texts = (*kept, *(call.arguments for call in calls))
        return sum(map(getsizeof, texts)) + sum(each.held for each in self._open.values())

    # ------------------------------------------------------------------------------------ to feed

    def report(self, known: str, report: Report) -> None:
        """A report stands in the inbox under this hash; a commit may say later that it counts."""
        waiting = self._open.get((report.call, report.attempt))
        if waiting is not None:
            waiting.keep(self._scene, self._party(report.call), known, report)

    def wants(self, report: Report) -> BlobRef | None:
        """Where the record stands that is to be put into a report before that is given.

        None where it is there, or not needed.
        """
        waits = (report.call, report.attempt) in self._open
        return in_blob(report) if waits and self._party(report.call).turns else None

    def _party(self, call: str) -> Party:
        return self._calls[call].worker if call in self._calls else Party("")

    def share(self, log: RunLog) -> None:
        """For a fork: what it shares with its origin, before its own first commit."""
        for number, event in enumerate(islice(log.events(), log.shared), 1):
            self.number = number
            self._take(event, 0)
        self._done.clear()

    def commit(self, commit: Commit) -> list[Span]:
        """The spans that end with this commit."""
        for event in commit.events:
            self.number += 1
            self._take(event, commit.at)
        done, self._done = self._done, []
        return done

    def _take(self, event: AnyEvent, at: int) -> None:
        match event:
            case RunStarted():
                self._run_started(event)
            case RunForked():
                self._run_forked(event)
            case PolicyAsked():
                self._forget_question(at)
                self._enter(self._segment.asked(), at, at, semconv.CONTINUES)
                self._asked(event, at)
            case PolicyReplied():
                self._replied_to(event, at)
            case DecisionRejected():
                self._rejected(event)
            case RoundPlanned():
                self._planned(event)
            case AttemptStarted():
                self._attempts += 1
                self._segment = self._segment.tried()
                begun = Begun(self.number, at, self._scene.context, {})
                self._open[event.call, event.attempt] = begun
            case CallSettled():
                self._settled(event, at)
            case ReportNoted():
                self._noted(event, at)
            case RoundClosed():
                self._calls = {
                    name: self._calls[name] for name in event.left if name in self._calls
                }
            case AnswerGiven():
                self._limited, self._answered = event.limited_by, self.number
                self._answer = self._said
            case RunFinished() | RunFailed() | RunCancelled():
                self._ended(event)
            case _:
                self._told(event, at)

    def _told(self, event: AnyEvent, at: int) -> None:
        """What happens within the run's own span."""
        match event:
            case RunActivated():
                self._scene.conductor, self._scene.rules = event.conductor, event.rules
                if event.epoch > 1:
                    self._forget_question(at)
                    taken: Attributes = {semconv.EPOCH: event.epoch}
                    self._tell(semconv.ACTIVATED, at, taken | {semconv.ACTOR_ID: event.conductor})
            case RunPaused():
                self._segment, self._pause = self._segment.paused(event.at), event.reason
                self._tell(semconv.PAUSED, at, {semconv.REASON: event.reason})
            case RunResumed():
                waited: Attributes = {semconv.REASON: self._pause}
                if self._segment.paused_at:
                    waited[semconv.PAUSE_MS] = max(0, event.at - self._segment.paused_at)
                self._resume(event.at)
                self._tell(semconv.RESUMED, at, waited)
            case SignalReceived():
                signal: Attributes = {semconv.SIGNAL_KIND: event.kind, semconv.BY: event.by}
                if event.reason and (reason := self._scene.content_of(event.reason)):
                    signal[semconv.DETAIL] = reason
                self._tell(semconv.SIGNALLED, at, signal)
            case BudgetExtended():
                self._tell(semconv.EXTENDED, at)
            case _:  # it tells of nothing that takes time
                pass

    def _tell(self, name: str, at: int, attributes: Attributes | None = None) -> None:
        self._root.tell(self._scene.happening(name, at, self.number, attributes))

    # ------------------------------------------------------------------------------------- segments

    def _resume(self, at: int) -> None:
        """A pause, if there was one, is over."""
        self._enter(self._segment.resumed(at), self._segment.paused_at, at, semconv.RESUMES)

    def _enter(self, segment: Segment, end: int, begin: int, kind: str) -> None:
        """Go on in a segment, which may be the one that the run is in.

        Args:
            segment: The segment.
            end: When the one before has ended, milliseconds since the epoch.
            begin: When this one begins.
            kind: Of the link back.
        """
        before, self._segment = self._segment, segment
        if segment.number == before.number:
            return
        scene, old = self._scene, self._root
        known, cause = scene.context, scene.event(self.number - 1)
        own = run_context(scene.run, self._traceparent, segment.number)
        self._root = old.following(self.number, begin, cause, end, Link.to(known, kind))
        if old.number:
            self._done.append(old.continued(scene, end, Link.to(own, semconv.CONTINUED_IN)))
        scene.context = own

    # ------------------------------------------------------------------------------------ questions

    def _asked(self, event: PolicyAsked, at: int) -> None:
        before, self._unanswered = self._unanswered, None
        number = 1
        links: tuple[Link, ...] = ()
        if before is not None and before[0].asked.asker == event.asker:
            number, links = before[0].attempt + 1, (before[1],)
        root = self._scene.context
        own = root.with_span(span_id(self._scene.event(self.number)))
        self._question = Question(event, self.number, at, own, root, number, links)

    def _replied_to(self, event: PolicyReplied, at: int) -> None:
        question, self._question = self._question, None
        decision, self._replied = event.decision, self.number
        self._offered = offered(self._scene, decision)
        self._said = self._scene.content_of(decision.answer if decision else None) or ""
        self._spent += event.spend
        self._scene.version = event.version or self._scene.version
        if question is None:
            return
        self._turns += 1
        scene, error, content = self._scene, failed(event.status), self._scene.event(self.number)
        if error:
            self._unanswered = question, Link.to(question.own, semconv.RETRIES)
        is_model = scene.policy.dialect != "decision" and event.version != WRITTEN
        if is_model and question.asked.asker == "policy":
            self._chats += 1
            self._done.append(plan(scene, question, at, error))
            self._done.append(chat(scene, question, event, at, content))
        else:
            self._done.append(plan(scene, question, at, error, content))

    def _rejected(self, event: DecisionRejected) -> None:
        """The reply that stands just before is none to follow: its question has failed."""
        self._offered, self._said = (), ""
        for index, span in enumerate(self._done):
            turn = span.attributes.get(semconv.TURN)
            if turn == event.turn and span.name.startswith(semconv.PLAN) and not span.error:
                self._done[index] = msgspec.structs.replace(
                    span,
                    error=event.reason,
                    message=event.reason,
                    attributes=span.attributes | {semconv.ERROR_TYPE: event.reason},
                )

    def _forget_question(self, at: int) -> None:
        """Whoever asked is gone, and the reply with it."""
        question, self._question = self._question, None
        if question is not None:
            self._done.append(plan(self._scene, question, at, semconv.ABANDONED))
            self._unanswered = question, Link.to(question.own, semconv.REDELIVERS)

    # ------------------------------------------------------------------------------------- attempts

    def _planned(self, event: RoundPlanned) -> None:
        self._scene.round = event.round
        cause = self._scene.event(self._replied)
        planned, self._offered, self._said = self._offered, (), ""
        for index, call in enumerate(planned):
            worker = self._workers.get(call.worker) or Party(call.worker, place=call.worker)
            made = Called(worker, call.ref, call.arguments, cause, call.waits(event.round))
            self._calls[f"{event.round}-{index}"] = made

    def _settled(self, event: CallSettled, at: int) -> None:
        self._spent += event.spend
        waiting = [key for key in self._open if key[0] == event.call]
        for call, number in waiting:
            if event.attempt in (0, number):
                self._over(call, number, at, event)
            else:  # an earlier attempt has reported after all
                self._over(call, number, at, lost(call), semconv.CANCELLED)
        if event.attempt == 0 and not waiting:
            begun = Begun(self.number, at, self._scene.context, {})
            self._attempted(self._tried(event.call, 0, begun, at, event, None))
        elif event.attempt and (event.call, event.attempt) not in waiting:
            self._late(event.call, event.attempt, at, event.spend)

    def _noted(self, event: ReportNoted, at: int) -> None:
        self._spent += event.spend
        waiting = self._open.get((event.call, event.attempt))
        if event.why == "late" or waiting is None:
            self._late(event.call, event.attempt, at, event.spend)
            return
        report = waiting.reports.get(event.report)
        ended = CallSettled(
            call=event.call,
            attempt=event.attempt,
            status=report.status if report else "EXEC_ERR",
            fault=report.fault if report else "infrastructure",
            report=event.report,
            spend=event.spend,
        )
        self._over(event.call, event.attempt, at, ended)

    def _over(self, call: str, number: int, at: int, ended: CallSettled, error: str = "") -> None:
        """Nobody waits for this attempt any more."""
        waiting = self._open.pop((call, number))
        report = waiting.reports.get(ended.report)
        self._attempted(self._tried(call, number, waiting, at, ended, report, error))

    def _tried(
        self,
        call: str,
        attempt: int,
        begun: Begun,
        at: int,
        ended: CallSettled,
        report: Report | None,
        error: str = "",
    ) -> Tried:
        root = begun.root
        own = root.with_span(attempt_id(self._scene.run, call, attempt))
        known = (call, attempt, begun.number, begun.at, root, own)
        return Tried(*known, self.number, at, ended, report, error)

    def _attempted(self, tried: Tried) -> None:
        called = self._calls.get(tried.call, Called(Party(""), "", None, ""))
        scene, under = self._scene, tried.root
        if self._messages and tried.attempt:
            published, processed = message(scene, called, tried)
            self._done += [published, processed]
            under = under.with_span(processed.id)
        self._done.append(attempt(scene, called, tried, under, self._joined(called)))
        self._done += turns(scene, called, tried)
        cause = scene.event(self.number)
        self._calls[tried.call] = msgspec.structs.replace(called, cause=cause, last=tried.own)
        self._last[tried.call] = tried.own

    def _joined(self, called: Called) -> tuple[Link, ...]:
        """To what this call has waited for."""
        if not called.waits:
            return ()
        before = (self._last.get(name) for name in called.waits)
        return tuple(Link.to(each, semconv.JOINS) for each in before if each is not None)

    def _late(self, call: str, number: int, at: int, spend: Spend) -> None:
        """A report of an attempt whose span has ended: it is billed all the same."""
        told: Attributes = {semconv.CALL_ID: call, semconv.ATTEMPT: number}
        self._tell(semconv.LATE_REPORT, at, told | spent(spend))

    # ------------------------------------------------------------------------------------- the run

    def _run_started(self, event: RunStarted) -> None:
        scene, above, parent = self._scene, parse(event.traceparent), event.parent
        scene.run = event.run  # of a fork's origin it is another than the log's
        scene.context = run_context(scene.run, event.traceparent)
        self._traceparent, self._segment = event.traceparent, FIRST
        scene.policy, scene.priority = event.policy, event.priority
        self._workers = {spec.name: party(spec) for spec in reversed(event.pool.workers)}
        self._root = Root(
            above=above.span if above else "",
            number=self.number,
            at=event.at,
            began=event.at,
            cause=f"{parent.run}/{parent.call}/{parent.attempt}" if parent else "",
            depth=event.depth,
            attempt=parent.attempt if parent else 0,
            task=scene.content_of(event.task.text) or "",
        )

    def _run_forked(self, event: RunForked) -> None:
        """Another run from here on: whatever is open is begun anew, under its own ids."""
        scene, origin = self._scene, event.origin
        self.number = origin.events + 1
        of = scene.context if self._root.number else run_context(origin.run)
        scene.run = event.run
        scene.context = run_context(scene.run)
        self._traceparent, self._segment = "", FIRST
        scene.policy, scene.priority = event.policy or scene.policy, event.priority
        self._workers |= {spec.name: party(spec) for spec in event.workers}
        self._root = Root(
            number=self.number,
            at=event.at,
            began=event.at,
            cause=f"{origin.run}@{origin.events}",
            depth=self._root.depth,
            task=self._root.task,
            links=(Link.to(of, semconv.FORKED_FROM),),
        )
        anew = (self.number, event.at, scene.context)
        self._open = {key: Begun(*anew, {}) for key in self._open}
        self._question, self._unanswered, self._spent = None, None, Spend()
        if event.policy is not None:
            scene.version = ""  # it has said nothing yet
        self._attempts = self._turns = self._chats = self._answered = 0

    def _ended(self, event: RunFinished | RunFailed | RunCancelled) -> None:
        self._forget_question(event.at)
        for call, number in list(self._open):
            self._over(call, number, event.at, lost(call), semconv.CANCELLED)
        self._resume(event.at)
        self.ended = True
        if self._root.number:
            self._done.append(self._whole(event))

    def _whole(self, event: RunFinished | RunFailed | RunCancelled) -> Span:
        outcome, error = "finished", ""
        if isinstance(event, RunFailed):
            outcome, error = "failed", event.reason
        elif isinstance(event, RunCancelled):
            outcome, error = "cancelled", semconv.CANCELLED
        totals: Attributes = {
            semconv.OUTCOME: outcome,
            semconv.LIMITED_BY: self._limited,
            semconv.TURNS: self._turns,
            semconv.CALLS: self._attempts,
            semconv.CONTENT_REF: self._scene.event(self._answered) if self._answered else "",
            **spent(self._spent),
        }
        if self._chats:
            totals[semconv.MODEL_CALLS] = self._chats
        return self._root.ended(self._scene, event.at, totals, self._answer, error)


def of_run(log: RunLog, *, records: Records = NO_RECORDS, **options: bool) -> list[Span]:
    """The spans of one run that have ended, in order; see `spans`."""
    projector = Projector(log.run, **options)
    projector.share(log)
    found: list[Span] = []
    reports = {each.hash: each.message for each in log.inbox if isinstance(each.message, Report)}
    for commit in log.commits:
        for event in commit.events:
            if isinstance(event, CallSettled | ReportNoted) and event.report in reports:
                report = reports[event.report]
                record = records.get(event.report, report.record)
                projector.report(event.report, msgspec.structs.replace(report, record=record))
        found += projector.commit(commit)
    return in_order(found)


def spans(logs: Iterable[RunLog], *, records: Records = NO_RECORDS, **options: bool) -> list[Span]:
    """The spans of several runs, such as one and those below it, in order.

    Args:
        logs: The runs.
        records: What stands in the blobs that `trace_turns.in_blobs` names.
        options: See `Projector`.
    """
    return in_order(span for log in logs for span in of_run(log, records=records, **options))
