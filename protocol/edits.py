"""Edits: what a fork may replace of the state it begins with, by a path of names and dots.

===========================  ===================================================================
path                         is
===========================  ===================================================================
``task.text``                the task, as the policy reads it
``task.inputs.KEY…``         one of its inputs
``calls.ID.value``           the observation of a call that has settled
``calls.ID.status``          its status
``calls.ID.arguments.KEY…``  the instruction of a call of the open round that has not settled
``workers.NAME.FIELD…``      a field of a worker, such as ``options.role`` or ``timeout_ms``
``budget.FIELD``             a limit, such as ``rounds``
===========================  ===================================================================

A key that isn't there is added where its container is a free object (inputs, arguments, options).
`problem` says why an edit can't be made; `apply` is total: what can't be made changes nothing,
since a recorded fork has happened.
"""

import sys
from typing import Any, Final, TypeVar

import msgspec

from protocol.actions import Json, Pool, WorkerSpec
from protocol.codec import deeper_than
from protocol.events import Edit
from protocol.limits import MAX_ARGUMENTS_BYTES, MAX_INLINE_BYTES, MAX_NESTING
from protocol.references import OUTPUTS_ARE_FILLED
from protocol.schemas import misfit, unfilled_misfit
from protocol.state import CallState, RunState

MAX_EDITS: Final = 64
"""Edits of one fork: more are another task."""

_SHOWN: Final = 12
"""Names that an error lists of what there is."""

_INDEX_DIGITS: Final = 9
"""Digits of a place in a list: no message holds a longer one."""

_T = TypeVar("_T", bound=msgspec.Struct)


class _Impossible(Exception):
    """The edit can't be made; the text says why."""


def problem(s: RunState, edit: Edit) -> str:
    """Why the edit can't be made in this state, with what could be; "" if it can."""
    try:
        _edited(s, edit)
    except _Impossible as error:
        return str(error)
    return ""


def apply(s: RunState, edit: Edit) -> None:
    """Make the edit in a state that nobody else holds; one that can't be made changes nothing."""
    try:
        made = _edited(s, edit)
    except _Impossible:
        return
    match made:
        case CallState():
            s.calls[made.call.id] = made
        case Pool():
            s.pool, s.workers = made, made.by_name()
        case _ if edit.path.startswith("budget."):
            s.wall_deadline += made.wall_ms - s.budget.wall_ms
            s.budget = made
        case _:
            s.task = made


def _edited(s: RunState, edit: Edit) -> Any:
    """The task, budget, pool or call with the edit made. Raises `_Impossible`."""
    match edit.path.split("."):
        case ["task", ("text" | "inputs"), *_] as keys:
            return _replaced(s.task, keys[1:], edit)
        case ["budget", field]:
            if field not in (fields := s.budget.__struct_fields__):
                raise _Impossible(f"{edit.path}: {_none(field, list(fields))}")
            return _replaced(s.budget, [field], edit)
        case ["workers", name, field, *_] as keys if field != "name":
            return _pool_with(s.pool, name, keys[2:], edit)
        case ["calls", name, *keys] if keys:
            return _call_with(s, name, keys, edit)
        case _:
            raise _Impossible(
                f"{edit.path}: nothing can be set there; what can are task.text, task.inputs.KEY, "
                "calls.ID.value, calls.ID.status, calls.ID.arguments.KEY, workers.NAME.FIELD and "
                "budget.FIELD"
            )


def _pool_with(pool: Pool, name: str, keys: list[str], edit: Edit) -> Pool:
    spec = pool.get(name)
    if spec is None:
        raise _Impossible(f"{edit.path}: {_none(name, [w.name for w in pool.workers])}")
    if keys[0] not in WorkerSpec.__struct_fields__:
        raise _Impossible(f"{edit.path}: {_none(keys[0], list(WorkerSpec.__struct_fields__))}")
    if keys[0] == "queue":
        raise _Impossible(f"{edit.path}: where a worker is hosted is the registry's to say")
    changed = _replaced(spec, keys, edit)
    return Pool(tuple(changed if worker is spec else worker for worker in pool.workers))


def _call_with(s: RunState, name: str, keys: list[str], edit: Edit) -> CallState:
    known = s.calls.get(name)
    if known is None:
        raise _Impossible(f"{edit.path}: {_none(name, list(s.calls))}")
    match keys:
        case ["value"] if known.status is not None:
            if len(msgspec.json.encode(edit.value)) > MAX_INLINE_BYTES:
                raise _Impossible(f"{edit.path}: a value of at most {MAX_INLINE_BYTES} bytes fits")
            return msgspec.structs.replace(known, report="", value=edit.value, late="")
        case ["status"] if known.status is not None:
            if edit.value not in ("OK", "PARSE_ERR", "EXEC_ERR", "TIMEOUT"):
                raise _Impossible(
                    f"{edit.path}: {edit.value!r} is no status; one is OK, PARSE_ERR, EXEC_ERR or "
                    "TIMEOUT"
                )
            fault = "none" if edit.value == "OK" else "worker"
            return msgspec.structs.replace(known, status=edit.value, fault=fault)
        case ["value" | "status"]:
            raise _Impossible(f"{edit.path}: call {name} has not settled at this event")
        case ["arguments", *_] if known.status is None:
            return _instructed(s, known, keys, edit)
        case ["arguments", *_]:
            raise _Impossible(
                f"{edit.path}: call {name} has settled, and what it was asked is history; fork "
                f"before it settled, or set calls.{name}.value"
            )
        case _:
            raise _Impossible(f"{edit.path}: {_none(keys[0], ['value', 'status', 'arguments'])}")


def _instructed(s: RunState, known: CallState, keys: list[str], edit: Edit) -> CallState:
    call = _replaced(known.call, keys, edit)
    spec = s.workers.get(call.worker)
    fits = unfilled_misfit if s.rules >= OUTPUTS_ARE_FILLED else misfit
    wrong = fits(spec.parameters, call.arguments) if spec else ""
    if wrong:
        raise _Impossible(f"{edit.path}: {wrong}")
    if len(msgspec.json.encode(call.arguments)) > MAX_ARGUMENTS_BYTES:
        raise _Impossible(f"{edit.path}: arguments of at most {MAX_ARGUMENTS_BYTES} bytes fit")
    return msgspec.structs.replace(known, call=call)


def _replaced(struct: _T, keys: list[str], edit: Edit) -> _T:
    """A copy in which the value at a path of keys is another one."""
    tree: Json = msgspec.to_builtins(struct)
    within: Json = tree
    for key in keys[:-1]:
        if isinstance(within, list) and _index(key) < len(within):
            within = within[_index(key)]
            continue
        if not isinstance(within, dict):
            raise _Impossible(f"{edit.path}: there is nothing below {key!r}")
        within = within.setdefault(key, {})
    last = keys[-1]
    if isinstance(within, dict):
        within[last] = edit.value
    elif isinstance(within, list) and _index(last) < len(within):
        within[_index(last)] = edit.value
    else:
        raise _Impossible(f"{edit.path}: there is nothing at {last!r}")
    try:
        changed = msgspec.convert(tree, type(struct))
        data = msgspec.json.encode(changed)
        if deeper_than(MAX_NESTING + 1, data):  # within the struct
            raise ValueError(f"more than {MAX_NESTING} levels of lists and objects")
        return msgspec.json.decode(data, type=type(struct))
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise _Impossible(f"{edit.path}: {error}") from None


def _index(key: str) -> int:
    """The place in a list that a key names; beyond every list for one that names none."""
    return int(key) if key.isdecimal() and len(key) <= _INDEX_DIGITS else sys.maxsize


def _none(name: str, there: list[str]) -> str:
    more = ", …" if len(there) > _SHOWN else ""
    return f"there is no {name!r}; there are: {', '.join(there[:_SHOWN]) or 'none'}{more}"
