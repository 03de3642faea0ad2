"""Whether the rules of today, and the prompts of today, are those that wrote a run's log.

Each commit is decided again in the state that the log itself leads to (`redecide`), so one change
of the rules shows where it first matters, and again only where it matters again.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from protocol.actions import Json
from protocol.commands import PolicyReply
from protocol.decisions import PolicySpec, View
from protocol.dialects import prompt, prompt_hash, speaker
from protocol.events import (
    AnyEvent,
    AttemptStarted,
    CallSettled,
    DecisionRejected,
    PolicyAsked,
    PolicyReplied,
    RunActivated,
    RunPaused,
    UnknownEvent,
)
from protocol.run import RULES
from protocol.state import RunState
from protocol.views import COMPOSER, view
from replay.chain import RunLog
from replay.problems import Difference, Problem, difference, json, told
from replay.redecide import Decided, Step, redecide
from replay.rulebook import decider, in_words

PROMPT: Final = "protocol.dialects.prompt"

LOST_CAUSE: Final = "what it was decided on can't be had again from the log"

Prompts = Mapping[str, bytes]
"""Prompts that somebody has kept, by their hash."""


class Decisions(NamedTuple):
    """What deciding again has shown."""

    problems: list[Problem]
    commits: int
    """Commits that were decided again."""
    prompts: int
    """Prompts that were rendered again."""


class Checker:
    """Looks at one commit after the other, and remembers what it has seen.

    Args:
        log: The run.
        values: See `decisions`.
        prompts: See `decisions`.
    """

    def __init__(self, log: RunLog, values: Mapping[str, Json], prompts: Prompts) -> None:
        self.log, self.values, self.known = log, values, prompts
        self.problems: list[Problem] = []
        self.rules = RULES
        """The version under which the log says that it was decided."""
        self.matched = 0
        """The last question whose prompt is as it was."""
        self.prompts = 0
        self.unlike: Problem | None = None
        """The first prompt that isn't."""

    def check(self, decided: Decided) -> bool:
        """Look at one commit. False if what follows can't be checked by this version."""
        recorded, today = decided.commit.events, decided.events
        for event in recorded:
            if isinstance(event, RunActivated):
                self.rules = event.rules
        newer = self._newer(decided)
        if newer is not None:
            self.problems.append(newer)
            return False
        place = _first_difference(recorded, today)
        for at, step, event in _replies(decided):
            if place is None or at < place:
                self._check_prompt(decided.first + at, decided.commit.n, step, event)
        if place is not None:
            self.problems.append(self._diverged(decided, place))
        elif decided.after != decided.decided:
            self.problems.append(self._folded(decided))
        return True

    def _newer(self, decided: Decided) -> Problem | None:
        for place, event in enumerate(decided.commit.events):
            if isinstance(event, UnknownEvent):
                what = f"an event {event.name!r}" if event.name else "an event without a type"
                return self._written_later(decided, decided.first + place, what)
        for step in decided.steps:
            if step.command is None and "is no cause" in step.problem:
                return self._written_later(decided, 0, f"a cause {step.cause!r}")
        return None

    def _written_later(self, decided: Decided, event: int, found: str) -> Problem:
        n = decided.commit.n
        return Problem(
            run=self.log.run,
            kind="newer",
            what="unknown_event",
            where=f"event {event}" if event else f"commit {n}",
            event=event,
            commit=n,
            expected="events and causes that this version knows",
            found=found,
            likely="it was written by a newer version of Podium: verify the run with that one; "
            "what follows can't be checked by this one",
        )

    # ---------------------------------------------------------------------------------------- rules

    def _diverged(self, decided: Decided, place: int) -> Problem:
        recorded, today = decided.commit.events, decided.events
        expected = recorded[place] if place < len(recorded) else None
        found = today[place] if place < len(today) else None
        step = _step_at(decided.steps, place)
        differs = _difference(expected, found)
        about = expected if expected is not None else found
        assert about is not None
        command, before = (step.command, step.before) if step else (None, decided.before)
        problem = step.problem if step else ""
        return Problem(
            run=self.log.run,
            kind="diverged",
            what="rules",
            where=f"event {decided.first + place}, {_named(about)}",
            event=decided.first + place,
            commit=decided.commit.n,
            expected=_side(expected, differs, differs.expected),
            found=problem or _side(found, differs, differs.found),
            function=decider(command, about, before),
            cause=in_words(command, step.cause) if step else "nothing that the commit names",
            likely=LOST_CAUSE if problem else self._why(about, differs),
            follows=_count(recorded, today) - 1,
            values=(json(differs.expected), json(differs.found)) if differs.path else None,
        )

    def _why(self, event: AnyEvent, differs: Difference) -> str:
        """The likely cause of a divergence."""
        if self.rules != RULES:
            return (
                f"it was decided under rules {self.rules!r}, and these are {RULES!r}: a difference "
                "is to be expected where they changed"
            )
        part = _part(event, differs)
        return (
            f"{part}; or the log was written by other code than Podium's. Rules that decide "
            f"otherwise need another version: protocol.run.RULES is still {RULES!r}"
        )

    def _folded(self, decided: Decided) -> Problem:
        differs = difference(decided.after, decided.decided)
        path = differs.path if differs is not None else ""
        n = decided.commit.n
        return Problem(
            run=self.log.run,
            kind="diverged",
            what="state",
            where=f"the state after commit {n}",
            event=decided.first + len(decided.commit.events) - 1,
            commit=n,
            expected=f"{path}: {told(path, differs.expected)}" if differs else "the same state",
            found=f"{path}: {told(path, differs.found)}" if differs else "another one",
            function="protocol.transitions.apply",
            likely="the same events lead to another state when they are decided than when they "
            "are read: something that they hold doesn't survive its bytes",
        )

    # -------------------------------------------------------------------------------------- prompts

    def _check_prompt(self, number: int, n: int, step: Step, said: PolicyReplied) -> None:
        asked = step.before.asked
        if not said.prompt or asked is None or asked.turn != said.turn:
            return
        if not _shown(step.before) <= self.values.keys():
            return  # a value is lost, which is a problem of its own
        shown = view(step.before, self.values, asked.limited_by)
        asks = speaker(step.before.policy, asked.asker)
        self.prompts += 1
        found = prompt_hash(asks, shown)
        if found == said.prompt:
            self.matched = said.turn
        elif self.unlike is not None:
            self.unlike = msgspec.structs.replace(self.unlike, follows=self.unlike.follows + 1)
        else:
            differs = self._seen(said.prompt, asks, shown)
            self.unlike = Problem(
                run=self.log.run,
                kind="diverged",
                what="prompt",
                where=f"event {number}, the prompt of question {said.turn}",
                event=number,
                commit=n,
                expected=f"a prompt with the hash {said.prompt}",
                found=f"one with the hash {found}",
                function=PROMPT,
                cause=in_words(step.command, step.cause),
                likely=self._why_prompt(said, asks.dialect, step.before, differs),
                values=(json(differs.expected), json(differs.found)) if differs else None,
            )

    def _seen(self, recorded: str, asks: PolicySpec, shown: View) -> Difference | None:
        """Where the prompt differs from the recorded one, if somebody has kept that."""
        known = self.known.get(recorded)
        if known is None:
            return None
        today: Any = msgspec.json.decode(prompt(asks, shown))
        return difference(msgspec.json.decode(known), today)

    def _why_prompt(
        self, said: PolicyReplied, dialect: str, s: RunState, differs: Difference | None
    ) -> str:
        if self.rules != RULES:
            return f"it was shown under rules {self.rules!r}, and these are {RULES!r}"
        if differs is not None:
            return f"the two differ first in {differs.path or 'their whole'}"
        if s.asked is not None and s.asked.asker == "composer" and said.version != COMPOSER:
            return f"it was composed by {said.version!r}, and this is {COMPOSER!r}"
        if self.matched:
            return (
                f"that of question {self.matched} is as it was, so it is in what was shown since: "
                f"how the dialect {dialect!r} renders the turns after it, or a value of theirs "
                "that was changed, perhaps in a blob"
            )
        return (
            f"how the dialect {dialect!r} renders a prompt was changed (its text, the tools, the "
            "order of keys), or what of the run a policy is shown (protocol.views)"
        )


def decisions(
    log: RunLog,
    values: Mapping[str, Json],
    *,
    sound: int | None = None,
    skip: Collection[int] = (),
    prompts: Prompts | None = None,
) -> Decisions:
    """Decide a run's own log again, and render its prompts again.

    Args:
        log: With its origin, if it is a fork.
        values: Of its reports, by hash, those in blobs included. A prompt that shows one that isn't
            there is passed over.
        sound: Commits, from the first on, that are what was written; None for all.
        skip: Numbers of commits that can't be decided again: what they were decided on is lost.
        prompts: Prompts that were kept, to say where one differs.
    """
    checker = Checker(log, values, prompts or {})
    commits = 0
    for decided in redecide(log):
        if sound is not None and decided.commit.n > sound:
            break
        if decided.commit.n in skip:
            continue
        if not checker.check(decided):
            break
        commits += 1
    problems = [*checker.problems, *([checker.unlike] if checker.unlike else [])]
    problems.sort(key=lambda each: each.event)
    return Decisions(problems, commits, checker.prompts)


def _replies(decided: Decided) -> list[tuple[int, Step, PolicyReplied]]:
    """The recorded replies of a commit, and the step in which each is decided on."""
    found = []
    for place, event in enumerate(decided.commit.events):
        if isinstance(event, PolicyReplied):
            for step in decided.steps:
                command = step.command
                if isinstance(command, PolicyReply) and command.turn == event.turn:
                    found.append((place, step, event))
                    break
    return found


def _shown(state: RunState) -> set[str]:
    """Hashes of the reports whose values a policy is shown."""
    return {call.report for call in state.calls.values() if call.report}


def _first_difference(a: tuple[AnyEvent, ...], b: tuple[AnyEvent, ...]) -> int | None:
    for place in range(max(len(a), len(b))):
        if a[place : place + 1] != b[place : place + 1]:
            return place
    return None


def _count(a: tuple[AnyEvent, ...], b: tuple[AnyEvent, ...]) -> int:
    return sum(a[i : i + 1] != b[i : i + 1] for i in range(max(len(a), len(b))))


def _step_at(steps: tuple[Step, ...], place: int) -> Step | None:
    """The step in which an event is decided; the last one for what should have followed."""
    count = 0
    for step in steps:
        count += len(step.events)
        if place < count:
            return step
    return steps[-1] if steps else None


def _difference(expected: AnyEvent | None, found: AnyEvent | None) -> Difference:
    if type(expected) is not type(found):
        return Difference("", expected and type(expected).__name__, found and type(found).__name__)
    differs = difference(expected, found)
    return differs if differs is not None else Difference("", None, None)


def _named(event: AnyEvent) -> str:
    """The event's type, and what it is about."""
    name = type(event).__name__
    call, attempt = getattr(event, "call", ""), getattr(event, "attempt", 0)
    if call:
        return f"{name} of call {call}" + (f", attempt {attempt}" if attempt else "")
    for field in ("turn", "round", "epoch"):
        if number := getattr(event, field, 0):
            return f"{name} of {field} {number}"
    return name


def _side(event: AnyEvent | None, differs: Difference, value: Any) -> str:
    if event is None:
        return "nothing"
    if not differs.path:
        return _named(event)
    return f"{type(event).__name__}.{differs.path} = {told(differs.path, value)}"


def _part(event: AnyEvent, differs: Difference) -> str:
    """Which part of the rules could have changed, by what differs."""
    path = differs.path
    if "reserve" in path or "limited_by" in path or "spend" in path:
        return "budgets are counted otherwise (protocol.budgets, protocol.rules)"
    if "deadline" in path or "retry_at" in path:
        return "waiting times were changed (protocol.limits)"
    match event:
        case PolicyReplied() | DecisionRejected():
            return "replies are parsed or checked otherwise (protocol.dialects, protocol.rules)"
        case CallSettled(status="PARSE_ERR"):
            return (
                "arguments are checked otherwise: the worker's schema (protocol.schemas), or the "
                "library that checks it (jsonschema-rs)"
            )
        case PolicyAsked() | RunPaused():
            return "a limit is reached at another moment (protocol.rules.limit_reached)"
        case AttemptStarted() | CallSettled():
            return "calls are started or settled otherwise (protocol.rules)"
        case _:
            return "the rules were changed"


__all__ = ["Decisions", "Prompts", "decisions"]
