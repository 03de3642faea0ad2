"""What an A2A agent says to one message, put together and made an outcome. Pure.

An agent answers with a message, or with a task whose status and artifacts arrive bit by bit, or as
a whole when it is asked for. `Heard` holds what is known so far; `outcome` is what comes of it.
"""

import base64
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from actors.ports import Outcome
from actors.workers.agent.chat import MAX_TOKENS
from actors.workers.outcomes import Unrepresentable, clean, failure, json_value
from protocol.actions import MICRO, UNKNOWN_USAGE, Json, Spend, Usage
from protocol.limits import MAX_VALUE_BYTES

if TYPE_CHECKING:
    from a2a.types import Artifact, Message, Part, StreamResponse, Task, TaskStatus
    from google.protobuf.struct_pb2 import Struct, Value

MAX_COST_USD: Final = 1_000_000.0
"""Dollars of one task that are believed; an agent that claims more miscounts."""

MAX_WHOLE: Final = 2**53
"""Beyond it a float has no units place: a whole number is left as it came."""

INPUT: Final = frozenset({"inputtokens", "prompttokens", "prompttokencount", "inputtokencount"})
OUTPUT: Final = frozenset(
    {"outputtokens", "completiontokens", "candidatestokencount", "outputtokencount"}
)
TOTAL: Final = frozenset({"totaltokens", "totaltokencount"})
COST: Final = frozenset({"costusd", "totalcostusd"})
"""What agents call these, letters only: A2A itself has no name for them."""


class Prices(msgspec.Struct, frozen=True):
    """What an agent costs."""

    attempt: float = 0.0
    """US dollars of each attempt that the agent took on, whatever comes of it."""
    read: float = 0.0
    """US dollars per million tokens read, as far as the agent tells them."""
    written: float = 0.0
    """The same of tokens written."""


class Told(msgspec.Struct, frozen=True):
    """What an agent says that it spent."""

    usage: Usage = UNKNOWN_USAGE
    cost: int | None = None
    """Micro-dollars."""
    total: int = 0
    """Tokens, where they are told, or also told, in one sum."""


class Heard:
    """What an agent has said so far to one message."""

    def __init__(self) -> None:
        self.task = ""
        """The id of its task, once it has begun one."""
        self.status: TaskStatus | None = None
        self.message: Message | None = None
        """Its reply, if it begins no task."""
        self.artifacts: dict[str, Artifact] = {}
        self.last: Message | None = None
        """The last thing that it said in the task's history."""
        self.told = Told()
        self.size = 0
        """Bytes of all that came in pieces."""

    @property
    def anything(self) -> bool:
        """Whether the agent took the message on."""
        return self.message is not None or self.task != ""

    @property
    def settled(self) -> bool:
        """Whether nothing more will come: it has ended, or waits for somebody."""
        from a2a.types import TaskState

        if self.message is not None or self.too_large:
            return True
        return self.status is not None and self.status.state not in (
            TaskState.TASK_STATE_UNSPECIFIED,
            TaskState.TASK_STATE_SUBMITTED,
            TaskState.TASK_STATE_WORKING,
        )

    @property
    def open(self) -> bool:
        """Whether the agent may still be at work, and nobody will wait for it."""
        from a2a.types import TaskState

        state = None if self.status is None else self.status.state
        left = self.too_large or state == TaskState.TASK_STATE_AUTH_REQUIRED
        return self.task != "" and (left or not self.settled)

    @property
    def too_large(self) -> bool:
        """Whether it sends more than a value may have."""
        return self.size > MAX_VALUE_BYTES

    def hear(self, event: "StreamResponse") -> None:
        """Take in one piece."""
        match event.WhichOneof("payload"):
            case "task":
                self.take(event.task)
            case "message":
                self.message = event.message
                self._tell(event.message.metadata)
            case "status_update":
                self.task = event.status_update.task_id or self.task
                self.status = event.status_update.status
                self._tell(event.status_update.metadata, self.status.message.metadata)
            case "artifact_update":
                update = event.artifact_update
                self.task = update.task_id or self.task
                self.size += event.ByteSize()
                before = self.artifacts.get(update.artifact.artifact_id)
                if update.append and before is not None:
                    before.parts.extend(update.artifact.parts)
                else:
                    self.artifacts[update.artifact.artifact_id] = update.artifact
                self._tell(update.metadata, update.artifact.metadata)

    def take(self, task: "Task") -> None:
        """Take in the task as it stands: what was known of it before counts no more."""
        from a2a.types import Role

        self.task, self.status = task.id or self.task, task.status
        self.artifacts = {each.artifact_id: each for each in task.artifacts}
        said = [each for each in task.history if each.role == Role.ROLE_AGENT]
        self.last = said[-1] if said else None
        self._tell(task.metadata, task.status.message.metadata)

    def _tell(self, *metadata: "Struct") -> None:
        """The last that is told counts: it is of all that was spent until then."""
        for each in metadata:
            if each.fields:
                try:
                    found = told(_plain_json(each))
                except Unrepresentable:
                    continue
                self.told = Told(
                    found.usage if found.usage != UNKNOWN_USAGE else self.told.usage,
                    self.told.cost if found.cost is None else found.cost,
                    found.total or self.told.total,
                )


def outcome(heard: Heard, prices: Prices) -> Outcome:
    """What came of the message, once `Heard.settled`."""
    from a2a.types import TaskState

    cost, told_of = spend(heard, prices), heard.told.usage
    if heard.too_large:
        text = f"The agent sent more than {MAX_VALUE_BYTES} bytes, which no value may have."
        return failure("EXEC_ERR", "worker", text, cost)
    state = None if heard.status is None else heard.status.state
    if heard.message is not None or state == TaskState.TASK_STATE_COMPLETED:
        try:
            return Outcome(value=_value(heard), spend=cost, usage=told_of)
        except Unrepresentable as error:
            return failure("EXEC_ERR", "worker", f"The agent's result: {error}", cost)
    said = _said(heard)
    why = f": {said}" if said else " and says nothing of why"
    match state:
        case TaskState.TASK_STATE_INPUT_REQUIRED:
            made = failure(
                "EXEC_ERR",
                "worker",
                f"The agent asks for more: {said or '(it does not say what)'}\n"
                f'To answer, call it again with "task": "{heard.task}" and the answer as the '
                "subtask; or give it a complete subtask anew.",
                cost,
            )
        case TaskState.TASK_STATE_AUTH_REQUIRED:
            made = failure(
                "EXEC_ERR",
                "infrastructure",
                f"The agent wants to be authorised{why}. Give it what it needs where it runs, or "
                "in the headers of the worker's options.",
                cost,
            )
        case TaskState.TASK_STATE_REJECTED:
            made = failure("EXEC_ERR", "worker", f"The agent refused the subtask{why}", cost)
        case TaskState.TASK_STATE_CANCELED:
            made = failure("EXEC_ERR", "worker", f"The agent's task was cancelled{why}", cost)
        case _:
            made = failure("EXEC_ERR", "worker", f"The agent failed{why}", cost)
    return msgspec.structs.replace(made, usage=told_of)


def spend(heard: Heard, prices: Prices) -> Spend:
    """What the attempt cost: as the agent says, else by the prices; nothing if it took none on."""
    if not heard.anything:
        return Spend()
    usage = heard.told.usage
    cost = heard.told.cost
    if cost is None:
        tokens = usage.input * prices.read + usage.output * prices.written
        cost = round(prices.attempt * MICRO + tokens)
    return Spend(tokens=max(heard.told.total, usage.input + usage.output), cost=cost)


def told(metadata: Mapping[str, Json]) -> Told:
    """What metadata says of tokens and cost: in itself, or under a key that speaks of usage."""
    places = [metadata, *(each for name, each in metadata.items() if "usage" in _plain(name))]
    found = Told()
    for place in places:
        if isinstance(place, Mapping):
            usage = Usage(_count(place, INPUT), _count(place, OUTPUT))
            cost = _number(place, COST)
            found = Told(
                found.usage if usage == UNKNOWN_USAGE else usage,
                found.cost if cost is None else round(min(cost, MAX_COST_USD) * MICRO),
                _count(place, TOTAL) or found.total,
            )
    return found


def _count(place: Mapping[str, Json], names: frozenset[str]) -> int:
    return round(min(MAX_TOKENS, _number(place, names) or 0))


def _number(place: Mapping[str, Json], names: frozenset[str]) -> float | None:
    for name, value in place.items():
        known = _plain(name) in names and not isinstance(value, bool)
        if known and isinstance(value, int | float) and 0 <= value < math.inf:
            return float(value)
    return None


def _plain(name: str) -> str:
    return name.replace("_", "").replace(".", "").lower()


def _value(heard: Heard) -> Json:
    """The result: of the artifacts, else of what the agent said last."""
    if heard.message is not None:
        return value_of(heard.message.parts, "\n")
    values = [value_of(each.parts) for each in heard.artifacts.values() if each.parts]
    if not values:
        last = _last(heard)
        return None if last is None else value_of(last.parts, "\n")
    if all(isinstance(each, str) for each in values):
        return "\n\n".join(values)
    return values[0] if len(values) == 1 else values


def _last(heard: Heard) -> "Message | None":
    if heard.status is not None and heard.status.message.parts:
        return heard.status.message
    return heard.last


def _said(heard: Heard) -> str:
    """What the agent says of its state, as one text."""
    last = _last(heard)
    if last is None:
        return ""
    try:
        value = value_of(last.parts, "\n")
    except Unrepresentable as error:
        return str(error)
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def value_of(parts: "Iterable[Part]", between: str = "") -> Json:
    """The parts of an artifact or a message as one value; a list where they are of several kinds.

    Args:
        parts: Texts; data, which is JSON; files, as ``{name, mimeType, bytes or uri}`` with the
            bytes in base64.
        between: What stands between two texts. Nothing in an artifact: it may have come in
            chunks, which may end anywhere.

    Raises:
        Unrepresentable: A number that JSON does not have.
    """
    found: list[Json] = []
    texts: list[str] = []
    for part in parts:
        if part.WhichOneof("content") == "text":
            texts.append(part.text)
            continue
        if texts:
            found.append(clean(between.join(texts)))
            texts = []
        found.append(json_value(_piece(part)))
    if texts:
        found.append(clean(between.join(texts)))
    return found[0] if len(found) == 1 else found or None


def _piece(part: "Part") -> Json:
    file = {"name": part.filename, "mimeType": part.media_type}
    named = {key: clean(text) for key, text in file.items() if text}
    match part.WhichOneof("content"):
        case "data":
            return _whole(_plain_json(part.data))
        case "raw":
            return named | {"bytes": base64.b64encode(part.raw).decode()}
        case "url":
            return named | {"uri": clean(part.url)}
        case _:
            return None


def _plain_json(data: "Struct | Value") -> Json:
    """Data as JSON. Raises `Unrepresentable` for what JSON does not have, such as NaN."""
    from google.protobuf.json_format import Error, MessageToDict

    try:
        return MessageToDict(data)
    except (ValueError, Error) as error:
        raise Unrepresentable(f"no JSON: {error}") from None


def _whole(value: Json) -> Json:
    """``value`` with whole numbers as such: on the wire every number is a float."""
    match value:
        case float() if value.is_integer() and abs(value) < MAX_WHOLE:
            return int(value)
        case dict():
            return {key: _whole(each) for key, each in value.items()}
        case list():
            return [_whole(each) for each in value]
        case _:
            return value
