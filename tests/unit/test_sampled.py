"""A reply's tokens in the log: packed, as what they add, and whole again for whoever reads."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import Commit, blob_ref, decode_commit, encode
from protocol.decisions import Reply
from protocol.errors import InvalidData, NotFound
from protocol.events import AnyEvent, PolicyAsked, PolicyReplied
from protocol.limits import MAX_COMMIT_BYTES, MAX_REPLY_BYTES, MAX_SAMPLED_BYTES
from protocol.redaction import Redactor
from protocol.sampled import (
    Arrays,
    Sampled,
    pack_floats,
    pack_ids,
    unpack_floats,
    unpack_ids,
)
from replay.bundle import named_blobs
from replay.chain import Stored, assemble
from replay.memory_log import MemoryLog
from replay.tokens import encode as encode_arrays
from replay.tokens import tokens
from tests.runs import RUN

IDS = st.lists(st.integers(0, 2**32 - 1), max_size=20)


@given(IDS)
def test_ids_are_packed_without_loss(ids: list[int]) -> None:
    assert unpack_ids(pack_ids(ids)) == tuple(ids)
    assert len(pack_ids(ids)) == 4 * len(ids)


@given(st.lists(st.floats(-100, 0, width=32), max_size=20))
def test_log_probabilities_are_packed_without_loss(values: list[float]) -> None:
    assert unpack_floats(pack_floats(values)) == tuple(values)


def arrays(prompt: list[int], output: list[int]) -> Arrays:
    return Arrays(pack_ids(prompt), pack_ids(output), pack_floats([-0.5] * len(output)))


def replied(turn: int, prompt: list[int], output: list[int], after: int = 0) -> PolicyReplied:
    return PolicyReplied(turn=turn, sampled=Sampled(after=after, arrays=arrays(prompt, output)))


async def test_prompts_are_whole_again() -> None:
    events: list[AnyEvent] = [
        replied(1, [1, 2, 3], [4, 5]),
        PolicyAsked(turn=2),
        PolicyReplied(turn=2, status="TIMEOUT", error="late"),
        replied(3, [6], [7], after=1),
        replied(4, [8, 9], [10], after=3),
        replied(5, [1, 2], [3]),
    ]
    found = await tokens(events, MemoryLog().get_blob)
    assert [(each.turn, each.prompt_ids, each.output_ids) for each in found] == [
        (1, (1, 2, 3), (4, 5)),
        (3, (1, 2, 3, 4, 5, 6), (7,)),
        (4, (1, 2, 3, 4, 5, 6, 7, 8, 9), (10,)),
        (5, (1, 2), (3,)),
    ]
    assert found[0].output_logprobs == (-0.5, -0.5)


async def test_large_ones_are_read_from_their_blob() -> None:
    log = MemoryLog()
    blob = await log.put_blob(encode_arrays(arrays([1, 2], [3])))
    event = PolicyReplied(turn=1, sampled=Sampled(blob=blob, temperature=0.5))
    (found,) = await tokens([event], log.get_blob)
    assert (found.prompt_ids, found.output_ids) == ((1, 2), (3,))
    assert found.sampled.temperature == 0.5
    lost = Sampled(blob=blob_ref(b"never stored"))
    with pytest.raises(NotFound):
        await tokens([PolicyReplied(turn=1, sampled=lost)], log.get_blob)
    bad = await log.put_blob(b"[1")
    with pytest.raises(InvalidData, match="are no tokens"):
        await tokens([PolicyReplied(turn=1, sampled=Sampled(blob=bad))], log.get_blob)


async def test_what_goes_on_from_nothing_is_told() -> None:
    for wrong in (replied(2, [6], [7], after=1), PolicyReplied(turn=2, sampled=Sampled())):
        with pytest.raises(InvalidData, match="question 2 has no tokens"):
            await tokens([wrong], MemoryLog().get_blob)


def commit(*events: AnyEvent) -> Commit:
    return Commit(run=RUN, n=1, epoch=0, at=1, causes=(), events=events, prev="")


def test_a_blob_that_a_reply_names_belongs_to_its_run() -> None:
    blob = blob_ref(b"tokens")
    event = PolicyReplied(turn=1, sampled=Sampled(blob=blob))
    log = assemble(RUN, [Stored(1, encode(commit(event)))], [])
    assert named_blobs(log) == {blob.sha256: blob}


def test_a_reply_without_tokens_is_written_as_before() -> None:
    assert b"sampled" not in encode(commit(PolicyReplied(turn=1, text="hi")))
    old = b'{"type":"PolicyReplied","turn":1,"text":"hi"}'
    data = encode(commit()).replace(b'"events":[]', b'"events":[' + old + b"]")
    assert decode_commit(data).events == (PolicyReplied(turn=1, text="hi"),)


def test_tokens_come_back_from_the_log_as_they_were() -> None:
    event = replied(1, [1, 2], [3])
    assert decode_commit(encode(commit(event))).events == (event,)


def test_the_largest_tokens_of_an_event_leave_room_for_its_reply() -> None:
    most = Arrays(bytes(MAX_SAMPLED_BYTES))
    size = len(msgspec.json.encode(Reply(sampled=Sampled(arrays=most))))
    assert size < MAX_REPLY_BYTES // 2
    assert MAX_REPLY_BYTES < MAX_COMMIT_BYTES


def test_tokens_that_would_spell_a_secret_go_with_it() -> None:
    sampled = Sampled(arrays=arrays([1], [2]))
    redactor = Redactor()
    clean = Reply(text="nothing to hide", sampled=sampled)
    assert redactor.reply(clean) == clean
    secret = Reply(text="the key is sk-proj-" + "a1B2" * 12, sampled=sampled)
    found = redactor.reply(secret)
    assert "a1B2a1B2" not in found.text
    assert found.sampled is None
