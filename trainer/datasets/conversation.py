"""A rollout as messages, each reply with whether it is trained.

The prompts are those that the dialect of the policy to be trained makes of what was shown, whatever
the run's own policy spoke: so a script, an oracle or an endpoint teaches a model of ours. Where one
prompt does not begin with all that came before it, a further conversation begins: a reply is only
trained after what it was given after.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec

from protocol.actions import Json
from protocol.decisions import SLOTTED, Decision, PolicySpec, Rejection, Reply, View
from protocol.dialects import parse, render, request, requests
from protocol.dialects.shared import referable
from trainer.records import Rollout, Step

Message: TypeAlias = dict[str, Any]
"""A chat message as OpenAI's API has it."""

_encode: Final = msgspec.json.Encoder(order="deterministic").encode


@dataclass(slots=True)
class Conversation:
    """Messages, and which replies among them are trained."""

    messages: list[Message]
    tools: list[Message] = field(default_factory=list)
    replies: list["Place"] = field(default_factory=list)
    """The replies whose own prompt is what stands before them here, in their order."""

    @property
    def weights(self) -> list[int]:
        """For each message whether it is trained, 1 or 0."""
        trained = {place.message for place in self.replies if place.trained}
        return [int(index in trained) for index in range(len(self.messages))]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reply stands."""

    message: int
    """Among the messages."""
    turn: int
    """The question that it answers."""
    trained: bool


def messages_of(policy: PolicySpec, view: View) -> tuple[list[Message], list[Message]]:
    """The messages and the tools of a prompt."""
    return _parts(request(policy, view))


def _parts(asked: dict[str, Json]) -> tuple[list[Message], list[Message]]:
    return asked["messages"], asked.get("tools") or []


def reply_message(
    policy: PolicySpec, rollout: Rollout, step: Step, shown: View | None = None
) -> Message | None:
    """A reply as the policy to be trained would have said it; None where it can't say it.

    A reply that was rejected, or that gave no decision, is shown as the text that it was.

    Args:
        policy: Who is to be trained.
        rollout: The run.
        step: The reply, and what it was given after.
        shown: What it is given after in the data set, where that is something else. A dialect that
            points at calls by number says it otherwise then.
    """
    known = referable(shown or step.view)
    moved = policy.dialect in SLOTTED and known != referable(step.view)
    own = policy == rollout.policy and not moved
    if step.decision is None:
        return {"role": "assistant", "content": step.text}
    if own and policy.dialect != "openai":
        return {"role": "assistant", "content": step.text} if step.text.strip() else None
    said = render(policy, step.decision, rollout.pool, known)
    if not own and not _same(parse(policy, said, rollout.pool, known), step.decision):
        return None
    text = said.text
    if own and step.decision.calls:
        text = step.text  # the note beside its calls
    return _assistant(msgspec.structs.replace(said, text=text))


def _same(said: Decision | Rejection, meant: Decision) -> bool:
    """Whether what would be said does what was done; names of calls may differ."""
    if isinstance(said, Rejection):
        return False
    return _bare(said) == _bare(meant)


def _bare(decision: Decision) -> Decision:
    calls = tuple(msgspec.structs.replace(call, ref="") for call in decision.calls)
    return msgspec.structs.replace(decision, calls=calls)


def _assistant(reply: Reply) -> Message:
    message: Message = {"role": "assistant", "content": reply.text or None}
    if reply.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.id or f"call_{place}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for place, call in enumerate(reply.tool_calls)
        ]
    return message


def numbered(messages: Sequence[Message]) -> list[Message]:
    """Messages whose calls are numbered as they come, to be compared.

    Their own ids are a server's, and say nothing of what was asked.
    """
    names: dict[str, str] = {}

    def name(own: str) -> str:
        return names.setdefault(own, str(len(names)))

    found = []
    for message in messages:
        shown = dict(message)
        if calls := message.get("tool_calls"):
            shown["tool_calls"] = [{**call, "id": name(call["id"])} for call in calls]
        if "tool_call_id" in message:
            shown["tool_call_id"] = name(message["tool_call_id"])
        found.append(shown)
    return found


def conversations(
    policy: PolicySpec, rollout: Rollout, mistakes: frozenset[int], *, clean: bool = False
) -> list[Conversation]:
    """The conversations of a rollout; one, where every prompt goes on from the one before.

    Args:
        policy: Who is to be trained.
        rollout: The run.
        mistakes: Turns that are context and are not trained, as what a fork shares is.
        clean: Leave those turns out, as if they had never been.
    """
    found: list[Conversation] = []
    skipped = _turns_of(rollout.steps, mistakes) if clean else frozenset[int]()
    steps = [each for each in rollout.steps if not (clean and each.turn in mistakes)]
    views = [_without(step.view, skipped) for step in steps]
    prompts = [_parts(asked) for asked in requests(policy, views)]
    for place, (step, view) in enumerate(zip(steps, views, strict=True)):
        said = reply_message(policy, rollout, step, view)
        if said is None:
            continue
        prompt, tools = prompts[place]
        later = _later(prompt, prompts[place + 1][0]) if place + 1 < len(prompts) else None
        trained = step.own and step.turn not in mistakes
        _add(found, prompt, tools, later or said, step.turn, trained)
    return [each for each in found if any(place.trained for place in each.replies)]


def _add(
    found: list[Conversation],
    prompt: list[Message],
    tools: list[Message],
    said: Message,
    turn: int,
    trained: bool,
) -> None:
    for each in reversed(found):
        known = len(each.messages)
        if each.tools == tools and prompt[:known] == each.messages:
            each.messages += prompt[known:]
            break
    else:
        each = Conversation(list(prompt), tools)
        found.append(each)
    each.replies.append(Place(len(each.messages), turn, trained))
    each.messages.append(said)


def _later(prompt: list[Message], following: list[Message]) -> Message | None:
    """The reply as the next prompt shows it: what the policy reads of it when it goes on."""
    known = len(prompt)
    if len(following) > known and following[:known] == prompt:
        return following[known] if following[known]["role"] == "assistant" else None
    return None


def _turns_of(steps: tuple[Step, ...], mistakes: frozenset[int]) -> frozenset[int]:
    """Where, among the turns of later views, the replies of these questions stand."""
    return frozenset(len(step.view.turns) for step in steps if step.turn in mistakes)


def _without(view: View, skipped: frozenset[int]) -> View:
    if not skipped:
        return view
    turns = (turn for place, turn in enumerate(view.turns) if place not in skipped)
    return msgspec.structs.replace(view, turns=tuple(turns))


def removable(rollout: Rollout, mistakes: frozenset[int]) -> bool:
    """Whether these turns can be left out: nothing that came of them is used later."""
    made = {
        each.call.id
        for step in rollout.steps
        if step.turn in mistakes
        for each in step.calls
        if each.status in (None, "OK")
    }
    return not made


def key_of(messages: Json) -> bytes:
    """Messages as bytes, to be compared and stored."""
    return _encode(messages)
