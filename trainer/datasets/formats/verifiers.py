"""verifiers 0.4: a rollout a line, an ``Episode`` with the ``Trace`` of the policy.

A trace is a graph: a node a message, with the tokens that it adds; each path from a root to a leaf
is one row. The tokens between two replies stand on the last of the messages between them, since a
log knows prompts whole and not by message. Log-probabilities keep all their digits: verifiers' own
records round them to four.

``sampled`` says that a model wrote a message, its mistakes included; what is trained of it, the
masks of its tokens say. So a row without tokens that has a reply that is not trained is left out.
"""

from dataclasses import replace
from typing import Any, BinaryIO, Final

import numpy as np

from protocol.actions import Json
from trainer.datasets.conversation import Message
from trainer.datasets.facts import task_key
from trainer.datasets.formats.lines import Lines
from trainer.datasets.made import Kept, Made, Sample
from trainer.datasets.spec import Spec

SUFFIX: Final = ".jsonl"
KINDS: Final = ("sft", "rl")

VERSION: Final = "0.4.0"
"""Of verifiers, whose records these are."""

AGENT: Final = "conductor"

_UNMASKED: Final = (
    "without tokens nothing says that a reply is not trained: build with --tokenizer FOLDER"
)

Object = dict[str, Any]


class Verifiers(Lines):
    """See `formats.Writer`."""

    def __init__(self, file: BinaryIO, spec: Spec) -> None:
        super().__init__(file)
        self._rl = spec.kind == "rl"

    def add(self, made: Made) -> None:
        """See `formats.Writer.add`."""
        for kept in made.kept:
            if any(sample.talk is None for sample in kept.samples):
                made.notes.append("no messages: build with text = true")
                continue
            masked = [each for each in kept.samples if _masked(each)]
            made.notes += [_UNMASKED] * (len(kept.samples) - len(masked))
            if masked:
                self.line(_episode(replace(kept, samples=masked), made.key, rl=self._rl))


def _masked(sample: Sample) -> bool:
    """Whether a row says which of its replies are trained, or trains them all."""
    assert sample.talk is not None
    return bool(len(sample.ids)) or all(place.trained for place in sample.talk.replies)


def _episode(kept: Kept, group: str, *, rl: bool) -> Object:
    rollout = kept.rollout
    ok = rollout.outcome == "finished"
    task = {
        "type": "Task",
        "data": _task(rollout.task.text, rollout.task.inputs, rollout.task.check),
        "key": task_key(rollout.task),
        "hash": task_key(rollout.task),
    }
    return {
        "id": rollout.run,
        "env": {"id": "podium"},
        "task": task,
        "group": {"id": group},
        "ok": ok,
        "traces": [_trace(kept, task, ok=ok, rl=rl)],
    }


def _task(text: str, inputs: dict[str, Json], check: Json) -> Object:
    return {"prompt": text, "inputs": inputs, "check": check}


def _trace(kept: Kept, task: Object, *, ok: bool, rl: bool) -> Object:
    rollout, facts = kept.rollout, kept.facts
    nodes: list[Object] = []
    at = rollout.started_at / 1_000
    for sample in kept.samples:
        _branch(nodes, sample, at, rl=rl)
    end = at + rollout.elapsed_ms / 1_000
    rewards: Object = {}
    if kept.parts:
        rewards = {name: {"score": each} for name, each in sorted(kept.parts.items())}
    elif facts.reward is not None:
        rewards = {"reward": {"score": facts.reward}}
    return {
        "version": 1,
        "id": rollout.run,
        "verifiers": {"version": VERSION},
        "task": task,
        "agent": {"name": AGENT, "trainable": True, "config": {}},
        "nodes": nodes,
        "rewards": rewards,
        "info": {
            "podium": {
                "head": facts.head,
                "reward": facts.reward,
                "policy": rollout.policy.name,
                "versions": list(facts.versions),
                "rounds": rollout.rounds,
            }
        },
        "is_completed": bool(rollout.outcome),
        "ok": ok,
        "stop_condition": rollout.limited_by or rollout.outcome or None,
        "timing": {"start": at, "agent": {"start": at, "end": end}},
    }


def _branch(nodes: list[Object], sample: Sample, at: float, *, rl: bool) -> None:
    talk = sample.talk
    assert talk is not None
    replies = {place.message: place.turn for place in talk.replies}
    starts = dict(zip(sample.turns, sample.starts, strict=True)) if sample.starts else {}
    mask = sample.mask > 0
    parent: int | None = None
    done = 0
    for index, message in enumerate(talk.messages):
        turn = replies.get(index)
        node: Object = {"parent": parent, "message": _message(message), "timestamp": at}
        if parent is None and talk.tools:
            node["tools"] = [_tool(each) for each in talk.tools]
        node["sampled"] = turn is not None
        if turn is not None and turn in starts:
            begin = starts[turn]
            end = _end(mask, begin)
            _tokens(nodes, parent, sample, done, begin)
            _own(node, sample, mask, begin, end, rl=rl)
            done = end
        nodes.append(node)
        parent = len(nodes) - 1
    if len(sample.ids) > done and parent is not None:
        _tokens(nodes, parent, sample, done, len(sample.ids))


def _end(mask: Any, begin: int) -> int:
    """Where the run of trained tokens ends."""
    rest = np.flatnonzero(~mask[begin:])
    return begin + int(rest[0]) if len(rest) else len(mask)


def _tokens(nodes: list[Object], parent: int | None, sample: Sample, begin: int, end: int) -> None:
    """Context: on the message before the reply."""
    if parent is None or end <= begin:
        return
    node = nodes[parent]
    size = end - begin
    node["token_ids"] = [*node.get("token_ids", ()), *sample.ids[begin:end].tolist()]
    node["mask"] = [*node.get("mask", ()), *([False] * size)]


def _own(node: Object, sample: Sample, mask: Any, begin: int, end: int, *, rl: bool) -> None:
    node["token_ids"] = sample.ids[begin:end].tolist()
    node["mask"] = mask[begin:end].tolist()
    size = end - begin
    if len(sample.logprobs):
        node["logprobs"] = [float(each) for each in sample.logprobs[begin:end]]
    if rl:
        node["advantages"] = [float(sample.advantage or 0.0)] * size
    else:
        node["loss_weights"] = {"ce": sample.ce[begin:end].tolist()}


def _message(message: Message) -> Object:
    role = message["role"]
    shown: Object = {"role": role, "content": message.get("content") or ""}
    if role == "tool":
        shown["tool_call_id"] = message["tool_call_id"]
    if calls := message.get("tool_calls"):
        shown["tool_calls"] = [{"id": call["id"], **call["function"]} for call in calls]
    return shown


def _tool(tool: Message) -> Object:
    function = tool["function"]
    return {key: function[key] for key in ("name", "description", "parameters") if key in function}


def begin(file: BinaryIO, spec: Spec) -> Verifiers:
    """See `formats`."""
    return Verifiers(file, spec)
