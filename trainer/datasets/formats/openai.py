"""OpenAI's fine-tuning files, which many others read too: JSON Lines.

``sft``: ``messages``, ``tools``, ``parallel_tool_calls``; a reply that is not trained has a
``weight`` of 0. ``preference``: ``input``, ``preferred_output``, ``non_preferred_output``. ``rl``
(reinforcement fine-tuning): ``messages`` up to the first reply and ``tools``, a line a task, whose
other keys graders see as ``item.…``.
"""

from typing import Any, BinaryIO, Final

from trainer.datasets.conversation import Conversation, Message, messages_of
from trainer.datasets.formats.lines import Lines
from trainer.datasets.made import Made
from trainer.datasets.spec import Spec

SUFFIX: Final = ".jsonl"
KINDS: Final = ("sft", "rl", "preference")


class OpenAi(Lines):
    """See `formats.Writer`."""

    def __init__(self, file: BinaryIO, spec: Spec) -> None:
        super().__init__(file)
        self._rl = spec.kind == "rl"

    def add(self, made: Made) -> None:
        """See `formats.Writer.add`."""
        if self._rl:
            self._task(made)
            return
        for pair in made.pairs:
            self.line(
                {
                    "input": {"messages": pair.prompt, **_tools(pair.tools)},
                    "preferred_output": pair.chosen,
                    "non_preferred_output": pair.rejected,
                }
            )
        for sample in made.spoken:
            if sample.talk is None:
                made.notes.append("no messages: build with text = true")
                continue
            talk = sample.talk
            self.line({"messages": _weighted(talk), **_tools(talk.tools)})

    def _task(self, made: Made) -> None:
        if not made.kept or not made.kept[0].rollout.steps:
            return
        first = made.kept[0].rollout
        prompt, tools = messages_of(first.policy, first.steps[0].view)
        check = first.task.check
        answer = check.get("answer") if isinstance(check, dict) else None
        self.line(
            {
                "messages": prompt,
                **_tools(tools),
                "reference_answer": answer,
                "check": check,
                "group": made.key,
            }
        )


def _tools(tools: list[Message]) -> dict[str, Any]:
    return {"tools": tools, "parallel_tool_calls": True} if tools else {}


def _weighted(talk: Conversation) -> list[Message]:
    """The messages, each reply with whether it is trained."""
    return [
        {**message, "weight": weight} if message["role"] == "assistant" else message
        for message, weight in zip(talk.messages, talk.weights, strict=True)
    ]


def begin(file: BinaryIO, spec: Spec) -> OpenAi:
    """See `formats`."""
    return OpenAi(file, spec)
