"""Dialects: how a policy's words become a `Decision`, and how a `View` becomes what it is shown.

`parse` is total: whatever a policy said becomes a decision or a rejection, never an exception.
`prompt` is canonical: equal views give equal bytes on every machine, so that its hash, recorded
with a reply, proves what the policy was shown. All that either depends on is in the `PolicySpec`
that the run records:

============  ====================================================================================
``decision``  decisions as they are: rules, scripts, plans
``openai``    native tool calls
``hermes``    the text template of Hermes and Qwen3: tagged JSON within the messages
``lists``     the Conductor's three lists: a whole plan, whose last output is the answer
``slots``     a line a call, workers by slot, entities and outputs by number: for small models
``compact``   the same lines, to a prompt that says less of which is which
============  ====================================================================================

A dialect is a module of pure functions: `request` (what an endpoint is sent), `parse`, and its
inverse, `render`. Workers by number instead of by name are `naming`'s, around all of them.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final, assert_never

import msgspec

from protocol.actions import Json, Pool
from protocol.decisions import (
    NOTHING_REFERABLE,
    Decision,
    PolicySpec,
    Referable,
    Rejection,
    Reply,
    Turn,
    View,
)
from protocol.dialects import hermes, lists, naming, openai, pointers, slots
from protocol.dialects.shared import UNREADABLE, cut, referable
from protocol.events import Asker

__all__ = [
    "COMPOSER",
    "UNREADABLE",
    "note_of",
    "parse",
    "prompt",
    "prompt_hash",
    "referable",
    "render",
    "request",
    "request_hash",
    "requests",
    "speaker",
    "to_prompt",
    "with_note",
]

COMPOSER: Final = PolicySpec(name="composer")
"""Speaks for a run whose policy is not asked: decisions as they are, workers by name."""


def speaker(policy: PolicySpec, asker: Asker) -> PolicySpec:
    """Who replies to a question of this kind."""
    return policy if asker == "policy" else COMPOSER


def parse(
    policy: PolicySpec, reply: Reply, pool: Pool, known: Referable = NOTHING_REFERABLE
) -> Decision | Rejection:
    """What ``reply`` decides, or why it is no decision. Pure and total.

    A call of an unknown worker, or with arguments that do not fit, is not refused here: the rules
    settle that call alone, and the others of its round go ahead.

    Args:
        policy: Says how it speaks.
        reply: What it said.
        pool: The workers, by whose parameters some dialects read a call.
        known: What dialects of slots may refer to by number: `referable` of a view, or of a
            state (`replies`).
    """
    match policy.dialect:
        case "decision":
            if reply.decision is not None:
                return reply.decision
            return Rejection("not_a_decision", cut(reply.text or "The policy gave no decision."))
        case "openai":
            parsed = openai.parse(reply, pool)
        case "hermes":
            parsed = hermes.parse(reply, pool)
        case "lists":
            parsed = lists.parse(reply, naming.known(policy, pool))
        case "compact" | "slots":
            parsed = pointers.parse(reply, naming.known(policy, pool), known)
        case _:
            assert_never(policy.dialect)
    return naming.meant(policy, parsed, pool) if isinstance(parsed, Decision) else parsed


def render(
    policy: PolicySpec, decision: Decision, pool: Pool, known: Referable = NOTHING_REFERABLE
) -> Reply:
    """``decision`` as a policy would say it: `parse` gives it back, as far as the dialect can."""
    if policy.dialect == "decision":
        return Reply(decision=decision)
    spoken = naming.spoken(policy, decision, pool)
    match policy.dialect:
        case "openai":
            return openai.render(spoken)
        case "hermes":
            return hermes.render(spoken)
        case "lists":
            return lists.render(spoken, naming.known(policy, pool))
        case "compact" | "slots":
            return pointers.render(spoken, naming.known(policy, pool), known)
        case _:
            assert_never(policy.dialect)


def with_note(policy: PolicySpec, reply: Reply, note: str) -> Reply:
    """A reply of calls, as `render` gives it, with a note of the policy's beside them."""
    text = f"{note}\n{reply.text}" if policy.dialect == "hermes" else note
    return msgspec.structs.replace(reply, text=text)


def note_of(policy: PolicySpec, turn: Turn) -> str:
    """The note beside the calls of a turn."""
    return hermes.beside(turn.text) if policy.dialect == "hermes" else turn.text


def request(policy: PolicySpec, view: View) -> dict[str, Json]:
    """The part of a chat completion request that ``view`` decides: messages, and tools if any."""
    shown = naming.shown(policy, view)
    match policy.dialect:
        case "openai":
            return openai.request(shown, policy.system)
        case "hermes":
            return hermes.request(shown, policy.system)
        case "lists":
            return lists.request(shown, policy.system)
        case "compact" | "slots":
            return slots.request(shown, policy.system, policy.dialect)
        case "decision":
            raise ValueError("the dialect 'decision' has no request: it is asked with the view")
        case _:
            assert_never(policy.dialect)


def requests(policy: PolicySpec, views: Iterable[View]) -> Iterator[dict[str, Json]]:
    """`request` of each view, cheaper where they are of one run, one after another.

    They may have messages in common: change none.
    """
    if policy.dialect in ("compact", "slots"):
        shown = (naming.shown(policy, view) for view in views)
        return slots.requests(shown, policy.system, policy.dialect)
    return (request(policy, view) for view in views)


def prompt(policy: PolicySpec, view: View) -> bytes:
    """What a policy is shown for ``view``: canonical JSON, keys sorted."""
    return _canonical(view if policy.dialect == "decision" else request(policy, view))


def prompt_hash(policy: PolicySpec, view: View) -> str:
    """SHA-256 (hex) of `prompt`: two replies with the same hash answered the same question."""
    return hashlib.sha256(prompt(policy, view)).hexdigest()


def request_hash(asked: dict[str, Json]) -> str:
    """`prompt_hash` of what `request` has given."""
    return hashlib.sha256(_canonical(asked)).hexdigest()


def _canonical(shown: View | dict[str, Json]) -> bytes:
    return msgspec.json.encode(shown, order="deterministic")


def to_prompt(reply: Reply, policy: PolicySpec, view: View) -> Reply:
    """The reply, with the hash of the prompt that it answers."""
    return msgspec.structs.replace(reply, prompt=prompt_hash(policy, view))
