"""The Conductor's lists (arXiv 2512.04388): a whole plan at once, as three Python lists.

::

    model_id = [2, 1, 3]
    subtasks = ["Solve it by algebra: …", "Solve it by cases: …", "Compare the two, and answer."]
    access_list = [[], [], ["all"]]

Step by step: who works, on what, and which earlier steps' outputs it sees: none (``[]``), every one
(``["all"]``), or those of some steps, numbered from 0. So the access list is the graph: steps that
see nothing of each other run together. The output of the last step is the answer, and nobody is
asked for one; if that step fails, the policy is asked again and shown what came of each. Three
empty lists accept the last output that there is.

A subtask is a text. It becomes the one text that its worker takes, where there is one; any other
worker takes a JSON object, and that is what its subtask has to be. Workers are integers where the
policy knows them by number (`naming`), else strings.

A round is shown as the model typed it, as in `hermes`. `PlannedCall.after`, `earlier` and `ref`
have no form here, nor has an answer in the model's own words.
"""

import re
from typing import Final

import msgspec

from protocol.actions import Call, Json, Pool, WorkerSpec
from protocol.decisions import Decision, PlannedCall, Rejection, Reply, Turn, View
from protocol.dialects import shared
from protocol.dialects.literals import Item, named_lists, written
from protocol.dialects.shared import STILL_OPEN, UNREADABLE, UNREADABLE_CHARS, Message, compact, cut

NAMES: Final = ("model_id", "subtasks", "access_list")
"""The lists, as the paper calls them."""

ALL: Final = "all"
"""Every earlier step."""

SUBTASK: Final = "subtask"
"""What takes the text of a worker that declares no parameters, or that there is not."""

JOB: Final = """\
You are the conductor of a run. You do not solve the task yourself: you break it into steps, each \
for one of the workers below, and say who sees whose output.

- State each subtask completely: a worker sees its subtask, and the outputs of the steps that you \
let it see.
- Let the same question be worked on in different ways, by different workers, where it is hard, \
and let a later step compare what they found.
- The output of the last step is the answer to the task: let it be one that answers the question \
that was asked.
- Few steps are better than many."""
"""The conductor's job, as a model of this dialect is told it."""

_FORM: Final = """\
model_id = [one worker a step]
subtasks = [one text a step]
access_list = [one list a step: [] to see nothing, ["all"] to see every earlier step, or the \
numbers of some earlier steps, counted from 0]"""

_HOW: Final = f"""

Think first, then write your plan as three Python lists of the same length:
{_FORM}

Steps that do not see each other run in parallel. If the last step fails, you are shown what came \
of each step, and plan again. Three empty lists accept the last output that there is as the answer.

The workers:
"""

_CAME: Final = "What came of each step:"
_LATER: Final = "What came later, of an earlier step:"

_NUMBER: Final = re.compile(r"0|-?[1-9][0-9]{0,7}")
"""A worker's name that is written as an integer."""


def request(view: View, system: str = "") -> dict[str, Json]:
    """The part of a chat completion request that ``view`` decides: its messages."""
    return {"messages": messages(view, system)}


def messages(view: View, system: str = "") -> list[Message]:
    """The conversation so far: the job and the workers, the task, each plan and its outputs."""
    workers = "\n".join(map(_offered, view.pool.workers))
    shown: list[Message] = [
        {"role": "system", "content": (system or JOB) + _HOW + workers},
        shared.task(view),
    ]
    for turn in view.turns:
        shown.extend(_turn(turn, view.pool))
    if view.final:
        shown.append(_last_word(view))
    return shown


def parse(reply: Reply, pool: Pool) -> Decision | Rejection:
    """The plan in ``reply``, or that it accepts the last output. Total.

    Args:
        reply: What the model said; only its text counts.
        pool: Says which worker takes a text, and as what.
    """
    text = shared.clean(reply.text)
    if problem := shared.too_large(shared.size(text)):
        return problem
    found = named_lists(shared.spoken(text), NAMES)
    if missing := [name for name in NAMES if name not in found]:
        return _malformed(f"There is no list {' and no list '.join(missing)} that can be read.")
    workers, subtasks, access = (found[name] for name in NAMES)
    if not len(workers) == len(subtasks) == len(access):
        counts = f"{len(workers)}, {len(subtasks)} and {len(access)}"
        return _malformed(f"The lists have {counts} items: each needs one a step.")
    by_name = pool.by_name()
    calls: list[PlannedCall] = []
    for step, (worker, subtask, sees) in enumerate(zip(workers, subtasks, access, strict=True)):
        if isinstance(worker, list):
            return _malformed(f"model_id[{step}] is no worker.")
        if not isinstance(subtask, str):
            return _malformed(f"subtasks[{step}] is no text.")
        seen = _seen(sees, step)
        if seen is None:
            return _malformed(f"access_list[{step}] names something other than earlier steps.")
        name = str(worker)
        arguments = _arguments(subtask, by_name.get(name))
        calls.append(PlannedCall(worker=name, arguments=arguments, sees=seen))
    if problem := shared.too_large(shared.size(text) + len(msgspec.json.encode(calls))):
        return problem
    return Decision(calls=tuple(calls), last_answers=True)


def render(decision: Decision, pool: Pool) -> Reply:
    """``decision`` as a model would say it: the inverse of `parse`, of what has a form here."""
    by_name = pool.by_name()
    workers, subtasks, access = [], [], []
    for step, call in enumerate(decision.calls):
        worker = _as_typed(call.worker)
        workers.append(written(worker) if isinstance(worker, str) else str(worker))
        subtasks.append(written(_subtask(call.arguments, by_name.get(call.worker))))
        everything = step > 0 and call.sees == tuple(range(step))
        access.append('["all"]' if everything else str(list(call.sees)))
    columns = zip(NAMES, (workers, subtasks, access), strict=True)
    return Reply(text="\n".join(f"{name} = [{', '.join(items)}]" for name, items in columns))


def text_parameter(worker: WorkerSpec | None) -> str:
    """The parameter that takes a subtask's text; empty if the worker needs a JSON object."""
    if worker is None:
        return SUBTASK
    properties, required = (worker.parameters.get(key) for key in ("properties", "required"))
    if not isinstance(properties, dict) or not properties:
        return SUBTASK if worker.parameters.get("additionalProperties", True) else ""
    names = required if isinstance(required, list) and required else list(properties)
    schema = properties.get(names[0]) if len(names) == 1 else None
    return names[0] if isinstance(schema, dict) and schema.get("type") == "string" else ""


def _arguments(subtask: str, worker: WorkerSpec | None) -> dict[str, Json]:
    given = shared.json_object(subtask)
    if given is not None:
        return given
    if parameter := text_parameter(worker):
        return {parameter: subtask}
    return {UNREADABLE: cut(subtask, UNREADABLE_CHARS)}


def _subtask(arguments: dict[str, Json], worker: WorkerSpec | None) -> str:
    parameter = text_parameter(worker)
    text = arguments.get(parameter) if parameter and len(arguments) == 1 else None
    if isinstance(text, str) and shared.json_object(text) is None:
        return text
    return compact(arguments)


def _seen(access: Item, step: int) -> tuple[int, ...] | None:
    """The steps that a step may see; None if that makes no sense."""
    items = access if isinstance(access, list) else [access]
    if items == [ALL]:
        return tuple(range(step))
    steps = [item for item in items if isinstance(item, int) and 0 <= item < step]
    return tuple(dict.fromkeys(steps)) if len(steps) == len(items) else None


def _malformed(what: str) -> Rejection:
    return Rejection("malformed", f"{what} Write three Python lists of the same length:\n{_FORM}")


def _offered(worker: WorkerSpec) -> str:
    described = f"Worker {worker.name}: {worker.description or 'says nothing of itself.'}"
    if parameter := text_parameter(worker):
        schema = worker.parameters.get("properties", {}).get(parameter, {})
        told = schema.get("description") or ("" if parameter == SUBTASK else parameter)
        return f"{described}\n  Its subtask is a text{f': {told}' if told else '.'}"
    schema = compact(worker.parameters)
    return f"{described}\n  Its subtask is a JSON object, by this JSON Schema: {schema}"


def _turn(turn: Turn, pool: Pool) -> list[Message]:
    if turn.rejection is not None:
        return [*shared.refused(turn, turn.rejection), *_late(turn)]
    asked = shared.asked(turn)
    if not asked:
        return [*shared.said(turn.text), *_late(turn)]
    limit = shared.value_chars(len(asked))
    seen = {item.call.id: item for item in turn.observations}
    lines = []
    for step, call in enumerate(asked):
        item, head = seen.get(call.id), {"step": step, "worker": _as_typed(call.worker)}
        lines.append(
            compact({**head, "value": STILL_OPEN}, sort=False)
            if item is None
            else shared.result(item, limit, **head)
        )
    return [
        {"role": "assistant", "content": _typed(turn, asked, pool)},
        {"role": "user", "content": "\n".join([_CAME, *lines])},
        *_late(turn),
    ]


def _late(turn: Turn) -> list[Message]:
    """What came when the round was over, each output with what was asked."""
    lines = [
        shared.result(
            item,
            shared.LATE_CHARS,
            worker=_as_typed(item.call.worker),
            subtask=shared.sorted_json(item.call.arguments),
        )
        for item in turn.late
    ]
    return [{"role": "user", "content": f"{_LATER}\n{line}"} for line in lines]


def _as_typed(worker: str) -> int | str:
    return int(worker) if _NUMBER.fullmatch(worker) else worker


def _typed(turn: Turn, asked: list[Call], pool: Pool) -> str:
    """The plan as the model typed it, or anew if that doesn't say what was done."""
    steps = {call.id: step for step, call in enumerate(asked)}
    done = tuple(
        PlannedCall(
            worker=call.worker,
            arguments=call.arguments,
            sees=tuple(steps[other] for other in call.sees if other in steps),
        )
        for call in asked
    )
    parsed = parse(Reply(text=turn.text), pool)
    if isinstance(parsed, Decision) and parsed.calls == done:
        return turn.text
    return render(Decision(calls=done, last_answers=True), pool).text


def _last_word(view: View) -> Message:
    text = (
        f"No further steps are possible.{shared.limit_reached(view)} Accept the last output as the "
        "answer, with three empty lists."
    )
    return {"role": "user", "content": text}
