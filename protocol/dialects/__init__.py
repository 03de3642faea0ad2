"""Dialects: how a policy's words become a `Decision`, and how a `View` becomes what it is shown.

`parse` is total: whatever a policy said becomes a decision or a rejection, never an exception.
`prompt` is canonical: equal views give equal bytes on every machine, so that its hash, recorded
with a reply, proves what the policy was shown. The ``decision`` dialect (rules, scripts) speaks
decisions as they are; ``openai`` is native tool calls.
"""

import hashlib
from typing import assert_never

import msgspec

from protocol.actions import Pool
from protocol.decisions import Decision, Dialect, Rejection, Reply, View
from protocol.dialects import openai
from protocol.dialects.openai import UNREADABLE, cut

__all__ = ["UNREADABLE", "parse", "prompt", "prompt_hash", "to_prompt"]


def parse(dialect: Dialect, reply: Reply, pool: Pool) -> Decision | Rejection:
    """What ``reply`` decides, or why it is no decision. Pure and total.

    A call of an unknown worker, or with arguments that do not fit, is not refused here: the rules
    settle that call alone, and the others of its round go ahead.
    """
    match dialect:
        case "decision":
            if reply.decision is not None:
                return reply.decision
            return Rejection("not_a_decision", cut(reply.text or "The policy gave no decision."))
        case "openai":
            return openai.parse(reply, pool)
        case _:
            assert_never(dialect)


def prompt(dialect: Dialect, view: View) -> bytes:
    """What a policy of that dialect is shown for ``view``: canonical JSON, keys sorted."""
    match dialect:
        case "decision":
            return msgspec.json.encode(view, order="deterministic")
        case "openai":
            return msgspec.json.encode(openai.request(view), order="deterministic")
        case _:
            assert_never(dialect)


def prompt_hash(dialect: Dialect, view: View) -> str:
    """SHA-256 (hex) of `prompt`: two replies with the same hash answered the same question."""
    return hashlib.sha256(prompt(dialect, view)).hexdigest()


def to_prompt(reply: Reply, dialect: Dialect, view: View) -> Reply:
    """The reply, with the hash of the prompt that it answers."""
    return msgspec.structs.replace(reply, prompt=prompt_hash(dialect, view))
