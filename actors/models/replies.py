"""From a question to a row of the batch, and from an ended row to the reply that is recorded."""

from typing import NamedTuple

from actors.models.loading import Loaded
from actors.models.question import Question
from actors.models.sampler import Row
from protocol.actions import Spend, Usage
from protocol.decisions import NO_ROOM, Reply
from protocol.errors import InvalidData
from protocol.sampled import Arrays, Sampled, pack_floats, pack_ids, unpack_ids


class Asked(NamedTuple):
    """A question that is sampled."""

    question: Question
    row: Row
    known: int
    """Tokens at the prompt's beginning that are recorded already."""


def begun(loaded: Loaded, question: Question, deadline: float) -> Asked | Reply:
    """The row that a question becomes; a failure, if it can be none.

    Args:
        loaded: The version that is asked.
        question: What it is asked.
        deadline: See `Row.deadline`.
    """
    before = unpack_ids(question.before)
    try:
        ids, goes_on = loaded.prompt(question.messages, question.template, before)
    except InvalidData as error:
        return failed(error.message, retry=False)
    room = loaded.context - len(ids)
    if not ids or room <= 0:
        text = f"the prompt has {len(ids)} tokens; the model takes 1 to {loaded.context - 1}"
        return failed(f"{text}, and its reply", retry=False, finish=NO_ROOM if ids else "")
    said = question.sampling
    row = Row(ids, said, min(room, max(1, said.max_tokens)), deadline)
    return Asked(question, row, len(before) if goes_on else 0)


def ended(loaded: Loaded, asked: Asked, model: str, took_s: float) -> Reply:
    """The reply of a row that has ended, with all of how it was made.

    Args:
        loaded: The version that it was sampled from.
        asked: The question.
        model: The name of the model's folder.
        took_s: Seconds from the question to now.
    """
    row, said = asked.row, asked.question.sampling
    if row.error:
        return failed(row.error)
    read, wrote = len(row.prompt), len(row.output)
    if row.ended == "stopped":  # what was not begun has not been read
        spend = Spend(tokens=read + wrote if wrote else 0)
        return Reply(status="TIMEOUT", error=f"no reply within {took_s:g} s", spend=spend)
    arrays = Arrays(
        prompt=pack_ids(row.prompt[asked.known :]),
        output=pack_ids(row.output),
        logprobs=pack_floats(row.logprobs),
    )
    sampled = Sampled(
        after=int(asked.known > 0),
        arrays=arrays,
        temperature=said.temperature,
        top_p=said.top_p,
        top_k=said.top_k,
        max_tokens=row.limit,
        seed=said.seed,
        version=loaded.name,
        weights=loaded.weights,
        tokenizer=loaded.tokenizer_hash,
        template=loaded.template_hash(asked.question.template),
    )
    return Reply(
        text=loaded.text(row.output[:-1] if row.ended == "stop" else row.output),
        spend=Spend(tokens=read + wrote),
        usage=Usage(read, wrote),
        latency_ms=max(0, round(took_s * 1_000)),
        version=f"{model}/{loaded.name}@{loaded.weights[:12]}",
        finish=row.ended or "",
        sampled=sampled,
    )


def failed(text: str, *, retry: bool = True, finish: str = "") -> Reply:
    """A question without a reply."""
    return Reply(status="EXEC_ERR", error=text, retry=retry, finish=finish)
