"""What a client checks before it says anything: a conductor can go on with what is let through.

Each check raises an error that names what is wrong, and what to do about it.
"""

from collections.abc import Iterable
from typing import Final, TypeVar

import msgspec

from protocol import edits, subjects
from protocol.actions import Pool, Spend, WorkerSpec
from protocol.budgets import Budget, short_of
from protocol.commands import Fork, Start
from protocol.decisions import PolicySpec, Task, asked
from protocol.edits import MAX_EDITS
from protocol.errors import Conflict, InvalidData, NotFound, TooLarge, Usage
from protocol.events import RunForked
from protocol.inbox import SET_ASIDE, Label, SignalKind
from protocol.limits import MAX_POLICY_BYTES, MAX_POOL_BYTES, MAX_TASK_BYTES, MAX_WORKERS
from protocol.registry import as_defined, as_recorded
from protocol.run import evolve
from protocol.schemas import check_schema, misfit
from protocol.state import RunState
from replay.chain import RunLog, archived_before

MAX_FORKS: Final = 1_000
"""Forks that are queued at a time: enough to compare two policies, few enough to be a mistake in
the command no more than once."""


def check_run(run: str) -> None:
    """Raise `InvalidData` unless the text is a run's whole id."""
    if not subjects.is_run(run):
        raise InvalidData(
            f"{run!r} is no run's id",
            hint=f"an id has {subjects.RUN_ID_CHARS} of the characters {subjects.ALPHABET}",
        )


def check_start(start: Start) -> None:
    """Raise unless a conductor could begin this run."""
    check_run(start.run)
    if not start.task.text.strip():
        raise Usage("The task has no text.", hint='Ask something: podium run "…"')
    _fits(start.task, MAX_TASK_BYTES, "the task", "put large inputs into a document")
    check_pool(start.pool)
    if start.redact is not None:
        start.redact.check()
    if not start.policy.name:
        raise InvalidData("the policy has no name", hint="use 'rules' or 'openai:MODEL'")
    check_policy(start.policy, start.pool)
    budget = in_range(start.budget, "the budget")
    reserve = start.policy.reserve
    short = short_of(budget, Spend(), reserve, kept=reserve)
    if short:
        raise Usage(
            f"The budget of {short} can't pay for one reply of the policy {start.policy.name} "
            "and the final answer.",
            hint=f"A reply may spend {reserve.tokens:,} tokens and ${reserve.cost / 1e6:g}: "
            f"give at least twice as much.",
        )


def check_pool(pool: Pool) -> None:
    """Raise unless every worker has a name of its own, a schema and sensible numbers."""
    if not pool.workers:
        raise Usage("The pool has no workers.", hint="Name a pool file with --pool.")
    if len(pool.workers) > MAX_WORKERS:
        raise Usage(f"The pool has {len(pool.workers)} workers; at most {MAX_WORKERS} are possible")
    seen: set[str] = set()
    for spec in pool.workers:
        subjects.check_name(spec.name, "a worker of the pool")
        if spec.name in seen:
            raise Usage(
                f"The worker name {spec.name!r} is used twice in the pool.",
                hint="A policy calls a worker by its name: give each its own.",
            )
        seen.add(spec.name)
        in_range(spec, f"the worker {spec.name!r}")
        check_schema(spec.parameters, f"the worker {spec.name!r}")
        subjects.check_place(spec.queue, f"the worker {spec.name!r}")
        subjects.check_place(spec.host, f"the host of the worker {spec.name!r}")
        for field in ("concurrency", "replicas", "timeout_ms", "wait_ms", "attempts"):
            if getattr(spec, field) < 1:
                raise InvalidData(
                    f"the worker {spec.name!r} has {field} = {getattr(spec, field)}",
                    hint="it must be at least 1",
                )
    _fits(pool, MAX_POOL_BYTES, "the pool", "shorten descriptions and schemas")


def check_policy(policy: PolicySpec, pool: Pool) -> None:
    """Raise unless a conductor can make the policy, as far as that is known here."""
    from actors import policies

    _fits(policy, MAX_POLICY_BYTES, "the policy", "shorten its plan or its job")
    policies.place(policy)  # of an endpoint, by its options
    check_plan(policy, pool)


def check_plan(policy: PolicySpec, pool: Pool) -> None:
    """Raise unless a policy that follows a plan has one, for workers of the pool."""
    if asked(policy.name).partition(":")[0] != "static":
        return
    from actors.policies.static import StaticPolicy

    for call in StaticPolicy(policy).plan.call:
        worker = pool.get(call.worker)
        if worker is not None and worker.kind == "conductor":
            raise Usage(
                f"The plan of the policy {policy.name} calls {call.worker!r}, whose run would "
                "follow the same plan.",
                hint="Call the workers themselves.",
            )
        if worker is None:
            names = ", ".join(worker.name for worker in pool.workers)
            raise Usage(
                f"The plan of the policy {policy.name} calls {call.worker!r}, which is no worker "
                "of the pool.",
                hint=f"The pool has: {names}.",
            )


def check_inputs(policy: PolicySpec, task: Task) -> None:
    """Raise `Usage` unless the task has what a plan takes from it."""
    if asked(policy.name).partition(":")[0] != "static":
        return
    from actors.policies.plan import lacking
    from actors.policies.static import StaticPolicy

    if problem := lacking(StaticPolicy(policy).plan, task):
        there = ", ".join(task.inputs) or "none"
        raise Usage(
            f"The plan of the policy {policy.name} can't be followed: {problem}.",
            hint=f"Give it with --inputs; there are: {there}.",
        )


_Struct = TypeVar("_Struct", bound=msgspec.Struct)


def in_range(value: _Struct, what: str) -> _Struct:
    """The value, if every reader of the log would take it: msgspec checks only what it decodes."""
    try:
        return msgspec.json.decode(msgspec.json.encode(value), type=type(value))
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise InvalidData(f"{what}: {error}", hint="change that value") from None


def _fits(value: msgspec.Struct, limit: int, what: str, hint: str) -> None:
    size = len(msgspec.json.encode(in_range(value, what)))
    if size > limit:
        raise TooLarge(f"{what} has {size:,} bytes; at most {limit:,} are possible", hint=hint)


def _still_fitting(state: RunState, forked: RunState) -> None:
    """Raise `Usage` if a call that a fork makes is nothing that its worker takes there."""
    for name, known in forked.calls.items():
        before, spec = (each.workers.get(known.call.worker) for each in (state, forked))
        if known.status is not None or spec is None or spec == before:
            continue
        if wrong := misfit(spec.parameters, known.call.arguments):
            raise Usage(
                f"call {name} can't be made: {spec.name} takes other parameters in the fork: "
                f"{wrong}",
                hint=f"fork before it was planned, or set calls.{name}.arguments.KEY",
            )


def check_times(times: int) -> None:
    """Raise `Usage` unless so many forks can be queued at a time."""
    if not 1 <= times <= MAX_FORKS:
        raise Usage(
            f"{times} forks at a time; 1 to {MAX_FORKS} are possible", hint="Say --times 5."
        )


def check_fork(state: RunState, fork: Fork) -> Pool:
    """The pool of a fork. Raises unless a conductor could go on from this state as it."""
    check_run(fork.run)
    if len(fork.edits) > MAX_EDITS:
        raise Usage(f"{len(fork.edits)} edits; at most {MAX_EDITS} are possible")
    bare = RunForked(
        run=fork.run,
        origin=fork.origin,
        at=fork.origin.at,
        policy=fork.policy,
        workers=fork.workers,
        reopened=fork.reopened,
        redact=fork.redact,
    )
    forked = evolve(state, bare)
    for edit in fork.edits:
        if problem := edits.problem(forked, edit):
            raise Usage(
                f"run {fork.origin.run}, event {fork.origin.events}: {problem}",
                hint=f"what there is: podium state {fork.origin.run} --at {fork.origin.events}",
            )
        edits.apply(forked, edit)
    if not forked.task.text.strip():
        raise Usage("The task has no text.", hint="Set another with --set task.text=…")
    check_pool(forked.pool)
    if forked.redact is not None:
        forked.redact.check()
    _same_kinds(state.pool, forked.pool)
    _reopenable(state, fork)
    _still_fitting(state, forked)
    if fork.policy is not None:
        check_policy(fork.policy, forked.pool)
        check_inputs(fork.policy, forked.task)
    _affords(forked.budget, forked.committed, forked.policy)
    return forked.pool


def _same_kinds(old: Pool, pool: Pool) -> None:
    """A conductor among the workers answers with a run, and nothing else can take its place."""
    before = old.by_name()
    for worker in pool.workers:
        known = before.get(worker.name, worker)
        if (known.kind == "conductor") != (worker.kind == "conductor"):
            raise Usage(
                f"The worker {worker.name!r} is a {known.kind}; no {worker.kind} can take its "
                "place.",
                hint="Add it under a name of its own.",
            )


def _reopenable(state: RunState, fork: Fork) -> None:
    settled = [name for name in state.current if state.calls[name].status is not None]
    for name in fork.reopened:
        if name not in settled:
            raise Usage(
                f"run {fork.origin.run}, event {fork.origin.events}: call {name} can't be made "
                f"again; settled calls of the open round are: {', '.join(settled) or 'none'}",
                hint=f"choose the event before its round is closed: podium timeline "
                f"{fork.origin.run}",
            )


def unlike(hosted: Iterable[WorkerSpec], pool: Pool) -> str:
    """Why a deployment that hosts some workers can't make a pool's calls; "" if it can."""
    there = tuple(hosted)
    names = {worker.name for worker in there}
    absent = [
        worker.name
        for worker in pool.workers
        if as_defined(there, worker) is None and not as_recorded(there, worker)
    ]
    missing = [name for name in absent if name not in names]
    other = [name for name in absent if name in names]
    differs = f"without {', '.join(missing)}" if missing else ""
    if other:
        differs += f"{' and ' if missing else ''}with another definition of {', '.join(other)}"
    return differs


def withdrawing(offered: Pool, pool: Pool) -> str:
    """What applying a pool would withdraw from those that runs get; "" if nothing."""
    names = [worker.name for worker in offered.workers if pool.get(worker.name) is None]
    return ", ".join(names)


def _affords(budget: Budget, committed: Spend, policy: PolicySpec) -> None:
    reserve = policy.reserve
    if short := short_of(budget, committed, reserve):
        raise Usage(
            f"What is left of the budget of {short} can't pay for one reply of the policy "
            f"{policy.name}.",
            hint=f"Raise it: --set budget.{short}=…",
        )


def check_begun(log: RunLog) -> None:
    """Raise `Conflict` if a conductor has said that it could not begin the run."""
    if log.commits:
        return
    for entry in log.inbox:
        if isinstance(entry.message, Label) and entry.message.key == SET_ASIDE:
            raise Conflict(
                f"run {log.run} could not be begun: {entry.message.value}",
                hint="correct that, and begin another: this one was taken out of the queue",
            )


def check_beginning(log: RunLog) -> None:
    """Raise `NotFound` unless the run's beginning is there, which says what the run hides."""
    if archived_before(log):
        raise NotFound(
            f"run {log.run} is archived in {log.state().archived}, which is not read here: "
            "it isn't known what it hides",
            hint="name that archive's folder or bucket: [archive] url in podium.toml",
        )
    if log.set_aside["origin"]:
        raise NotFound(
            f"run {log.run} is a fork, and what it shares can't be had: it isn't known what it "
            "hides",
            hint=f"podium verify {log.run} says what is damaged",
        )


def check_told(run: str, kind: SignalKind, state: RunState, call: str = "") -> None:
    """Raise `Conflict` if a run of this state can't be told that."""
    if state.phase == "ended":
        raise Conflict(
            f"run {run} has ended already ({state.outcome}), and can't be told to {kind}",
            hint=f"see what came of it: podium runs show {run}",
        )
    if call and call not in state.open:
        raise Conflict(
            f"run {run}: call {call!r} is not at work",
            hint=f"see which are: podium runs show {run}",
        )
    if kind == "replan" and (why := _decides_nothing(state)):
        raise Conflict(
            f"run {run} can't decide anew: {why}",
            hint=f"see what it waits for: podium runs show {run}",
        )
    if kind == "extend" and state.parent is not None:
        raise Conflict(
            f"run {run} answers a call of run {state.parent.run}; its budget is part of that",
            hint=f"extend the root run: podium runs extend {state.parent.run}",
        )


def _decides_nothing(state: RunState) -> str:
    """Why a run would not ask its policy although calls go on; "" if it would."""
    if state.phase == "deciding":
        return "its policy is being asked as it is"
    if state.phase == "paused" and state.pause_reason != "person":
        return f"it is paused ({state.pause_reason})"
    return "" if state.open else "no call of it is at work"
