"""A chat completion request as a task. Pure: bytes in, `Asked` out, or a `Problem`.

The last message, the user's, is the task's text; what came before travels as its inputs:
``instructions`` (system and developer messages) and ``conversation`` (the others, each with its
role). A policy is shown inputs as JSON under the question, so nobody's earlier words can pass for
the question, and a policy that reads only the question (``rules``) reads just that.

What a run can't give (several choices, the caller's own tools, a schema for the answer) is refused,
since ignoring it would give another answer than was asked for. How a model samples is for the pool
to say, and is ignored, as is every field that is not known.
"""

import re
from typing import Annotated, Any, Final

import msgspec

from podium.config import BudgetTable
from podium.serve.problems import Problem, unsupported
from protocol.actions import Json
from protocol.budgets import Budget
from protocol.decisions import Task

MAX_BODY_BYTES: Final = 1_048_576
"""Bytes of a request's body. A task has at most `MAX_TASK_BYTES`; the rest is how it is written."""

MAX_STOPS: Final = 16
"""Texts at which an answer is cut; OpenAI takes four, others a few more."""

MAX_METADATA: Final = 16
"""Pairs of a request's metadata, as OpenAI has it."""

INSTRUCTIONS: Final = "instructions"
CONVERSATION: Final = "conversation"

_TEXT_PARTS: Final = frozenset({"text", "input_text", "output_text"})
_PATH: Final = re.compile(r" - at `(?:key in )?\$\.?(?P<path>[^`]*)`")


class Part(msgspec.Struct):
    """One part of a message's content."""

    type: str
    text: str = ""
    refusal: str = ""


class Message(msgspec.Struct):
    """One message."""

    role: str
    content: str | list[Part] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None
    function_call: Any = None


class StreamOptions(msgspec.Struct):
    """``stream_options``."""

    include_usage: bool | None = None


class Extra(msgspec.Struct, forbid_unknown_fields=True):
    """``podium``: what no other server knows (``extra_body`` of the official clients)."""

    budget: BudgetTable = BudgetTable()
    """What this run may spend; can only be less than the pool allows."""
    inputs: dict[str, Json] = {}
    """Further inputs of the task."""
    progress: bool = False
    """Whether a stream tells the run's story as ``reasoning_content``."""


class Request(msgspec.Struct):
    """The fields that are looked at."""

    model: str
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    tool_choice: Any = None
    function_call: Any = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    modalities: list[str] | None = None
    audio: Any = None
    web_search_options: Any = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    podium: Extra | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks for."""

    model: str
    task: Task
    budget: BudgetTable = BudgetTable()
    stream: bool = False
    usage: bool = False
    """Whether a stream ends with the usage."""
    progress: bool = False
    stops: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    """``user`` and ``metadata``, which become labels of the run."""


def read(body: bytes) -> Asked:
    """What the body asks for. Raises `Problem` for everything that is no request."""
    try:
        request = msgspec.json.decode(body, type=Request)
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise Problem(400, "invalid_json", f"The body is no JSON: {error}") from None
    _refuse(request)
    extra = request.podium or Extra()
    options = request.stream_options or StreamOptions()
    return Asked(
        model=request.model,
        task=_task(request.messages, extra.inputs),
        budget=extra.budget,
        stream=bool(request.stream),
        usage=bool(options.include_usage),
        progress=extra.progress,
        stops=_stops(request.stop),
        labels=_labels(request),
    )


def lowered(budget: Budget, by: BudgetTable) -> Budget:
    """The pool's budget, as far as the request wants less."""
    wanted = by.over(budget)
    least = {
        name: min(getattr(budget, name), getattr(wanted, name))
        for name in ("rounds", "calls", "parallel", "depth", "tokens", "cost", "wall_ms")
    }
    return msgspec.structs.replace(wanted, **least)


def _misfit(text: str) -> Problem:
    """A body that is JSON, and no request."""
    found = _PATH.search(text)
    what = _PATH.sub("", text).replace("Object", "The body" if found is None else "It", 1)
    param = found["path"] if found else None
    missing = re.search("missing required field `(?P<name>[^`]+)`", text)
    if missing and not param:
        param = missing["name"]
    code = "missing_required_parameter" if missing else "invalid_type"
    return Problem(400, code, f"{param}: {what}" if param else what, param=param)


def _refuse(request: Request) -> None:
    """Raise `Problem` for what would change the meaning of the answer."""
    if request.n not in (None, 1):
        raise unsupported("n", "a run gives one answer; send the request again for another")
    if request.tools or request.functions:
        name = "tools" if request.tools else "functions"
        raise unsupported(name, "the run uses its pool's workers; add the tool to the pool")
    for name in ("tool_choice", "function_call"):
        if getattr(request, name) not in (None, "none", "auto"):
            raise unsupported(name, "there are no tools to choose from")
    if (request.response_format or {}).get("type", "text") != "text":
        raise unsupported("response_format", "an answer is text; ask for the form in the message")
    if request.logprobs:
        raise unsupported("logprobs", "a run's answer has none")
    if set(request.modalities or ()) - {"text"} or request.audio is not None:
        raise unsupported("modalities", "an answer is text")
    if request.web_search_options is not None:
        raise unsupported("web_search_options", "what a run may search is for its pool to say")


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > MAX_STOPS:
        raise Problem(400, "invalid_value", f"stop: at most {MAX_STOPS} texts", param="stop")
    return tuple(filter(None, stops))


def _labels(request: Request) -> dict[str, str]:
    metadata = request.metadata or {}
    if len(metadata) > MAX_METADATA:
        text = f"metadata: at most {MAX_METADATA} pairs"
        raise Problem(400, "invalid_value", text, param="metadata")
    for key, value in metadata.items():
        if not 0 < len(key) <= 64 or len(value) > 512:
            text = "metadata: a key has at most 64 characters, a value at most 512"
            raise Problem(400, "invalid_value", text, param="metadata")
    labels = {f"metadata.{key}": value for key, value in metadata.items()}
    return {"user": request.user[:512], **labels} if request.user else labels


def _task(messages: list[Message], more: dict[str, Json]) -> Task:
    *before, last = [_said(number, message) for number, message in enumerate(messages)]
    place = f"messages[{len(before)}]"
    if last["role"] != "user":
        text = "the last message must be the user's: it is what the run answers"
        raise Problem(400, "invalid_value", f"{place}.role: {text}", param=f"{place}.role")
    if not last["content"].strip():
        param = f"{place}.content"
        raise Problem(400, "invalid_value", f"{param}: the message has no text", param=param)
    for name in (INSTRUCTIONS, CONVERSATION):
        if name in more:
            raise Problem(
                400,
                "invalid_value",
                f"podium.inputs.{name}: that name is taken by the earlier messages",
                param=f"podium.inputs.{name}",
            )
    inputs: dict[str, Json] = {}
    told = [said["content"] for said in before if said["role"] in ("system", "developer")]
    talked = [said for said in before if said["role"] in ("user", "assistant") and said["content"]]
    if any(told):
        inputs[INSTRUCTIONS] = "\n\n".join(filter(None, told))
    if talked:
        inputs[CONVERSATION] = talked
    return Task(text=last["content"], inputs={**inputs, **more})


def _said(number: int, message: Message) -> dict[str, str]:
    place = f"messages[{number}]"
    if message.role not in ("system", "developer", "user", "assistant"):
        why = f"the role {message.role!r} is not known here; the run uses its pool's own tools"
        raise unsupported(f"{place}.role", why)
    if message.tool_calls or message.function_call:
        why = "a run uses its pool's own tools, and can't go on with calls of others"
        raise unsupported(f"{place}.tool_calls", why)
    said = {"role": message.role, "content": _text(place, message)}
    return {**said, "name": message.name} if message.name else said


def _text(place: str, message: Message) -> str:
    if message.content is None:
        return message.refusal or ""
    if isinstance(message.content, str):
        return message.content
    texts = []
    for number, part in enumerate(message.content):
        if part.type not in _TEXT_PARTS and part.type != "refusal":
            why = f"parts of type {part.type!r} can't be given to a run; only text can"
            raise unsupported(f"{place}.content[{number}]", why)
        texts.append(part.text or part.refusal)
    return "\n".join(texts)
