"""What a conductor or a worker takes from its queue: only what it can go on with.

A client checks a task before it queues it; whoever writes to the broker without one doesn't. What
is let in here ends up in subjects, deadlines and time-outs.
"""

from typing import Any, Final

from protocol import subjects
from protocol.actions import MAX_COUNT, WorkerSpec
from protocol.codec import CallMessage, decode_call, decode_task
from protocol.commands import Fork, Start, TaskMessage
from protocol.errors import InvalidData

_NUMBERS: Final = ("concurrency", "replicas", "timeout_ms", "wait_ms", "attempts")


def admit_task(subject: str, data: bytes) -> TaskMessage:
    """The task message that stands on that subject. Raises `InvalidData`."""
    run = subject.rpartition(".")[2]
    message = decode_task(data)
    if message.run != run or not subjects.is_run(run):
        raise InvalidData(f"the task message on {subject} names run {message.run!r}")
    if isinstance(message, Start):
        _admit_start(message)
    elif isinstance(message, Fork):
        _admit_fork(message)
    return message


def _admit_start(start: Start) -> None:
    what = f"the task message of run {start.run}"
    for spec in start.pool.workers:
        subjects.check_name(spec.name, what)
        _admit_worker(spec, what)
    _count(start.policy.timeout_ms, f"{what}: the policy's timeout_ms")
    _count(start.depth, f"{what}: depth")
    if start.parent is not None:
        _place(start.parent.run, start.parent.call, start.parent.attempt, f"{what}: its parent")


def _admit_fork(fork: Fork) -> None:
    what = f"the task message of run {fork.run}"
    for spec in fork.workers:
        subjects.check_name(spec.name, what)
        _admit_worker(spec, what)
    if fork.policy is not None:
        _count(fork.policy.timeout_ms, f"{what}: the policy's timeout_ms")
    if not subjects.is_run(fork.origin.run) or fork.origin.run == fork.run:
        raise InvalidData(f"{what}: {fork.origin.run!r} is no run to fork")
    for number in (fork.origin.events, fork.origin.commit, fork.origin.at):
        _count(number, f"{what}: its origin")


def _admit_worker(spec: WorkerSpec, what: str) -> None:
    subjects.check_place(spec.queue, what)
    for field in _NUMBERS:
        _count(getattr(spec, field), f"{what}: {field} of the worker {spec.name}")


def admit_call(subject: str, data: bytes) -> CallMessage:
    """The call message that stands on that subject. Raises `InvalidData`."""
    message = decode_call(data)
    place = [message.worker, message.run, message.call, str(message.attempt)]
    tokens = subject.split(".")
    if len(tokens) != 6 or [tokens[1], *tokens[3:]] != place:
        raise InvalidData(f"the call message on {subject} is one of {place}")
    _place(message.run, message.call, message.attempt, f"the call message on {subject}")
    _count(message.timeout_ms, f"the call message on {subject}: timeout_ms")
    return message


def _place(run: str, call: str, attempt: int, what: str) -> None:
    if not subjects.is_run(run) or not subjects.is_call(call):
        raise InvalidData(f"{what}: {run!r}, {call!r} names no call of a run")
    _count(attempt, f"{what}: attempt")


def _count(number: Any, what: str) -> None:
    if not 0 <= number <= MAX_COUNT:
        raise InvalidData(f"{what} is out of range")
