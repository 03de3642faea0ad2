"""The simulated server answers as the real one does: the same requests, answer by answer.

The suites beside this one hold both to what Podium needs. Here they are asked the same things, by
chance and by hand, and whatever they say has to be equal but for names and numbers that each counts
for itself.
"""

import asyncio
import contextlib
import random
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest

from actors.jetstream_queue import JetStreamQueue, consumers_of
from protocol import subjects
from replay.broker import Broker, Refused, Unanswered
from tests.broker import One
from tests.contract.test_queue import until_accepted
from tests.places import WITHIN_S, BrokerPlace, SimPlace, new_run, new_worker

LEASE_S: Final = 0.6
"""Seconds after which an unacknowledged message is delivered again."""

OPERATIONS: Final = 120
"""Requests of one story by chance."""

Said = list[object]


class Story:
    """The same story, told to one server: what it is asked, and what it says.

    Args:
        broker: A connection.
        base: The last sequence of the stream before the story: numbers are counted from there.
    """

    def __init__(self, broker: Broker, base: int) -> None:
        self.broker, self.base = broker, base
        self.said: Said = []

    async def ask(self, what: str, question: Any) -> Any:
        """Note what a question is answered with."""
        try:
            answer = await question
        except Refused as no:
            text = re.sub(r"sequence: (\d+)", self._counted, no.text)
            answer = ("no", no.code, text)
        except Unanswered as none:
            answer = ("nothing", str(none))
        self.said.append((what, answer))
        return answer

    def _counted(self, found: re.Match[str]) -> str:
        return f"sequence: {self.count(int(found[1]))}"

    def count(self, seq: int) -> int:
        """A sequence, counted from the beginning of the story; 0 stays 0."""
        return seq - self.base if seq else 0


async def last_sequence(broker: Broker, stream: str) -> int:
    """The last sequence of a stream."""
    info = await broker.request(f"$JS.API.STREAM.INFO.{stream}")
    return int(info["state"]["last_seq"])


async def by_chance(broker: Broker, seed: int) -> Said:
    """Appends with right and wrong conditions, and reads, of a few runs."""
    chance, stream = random.Random(seed), subjects.log_stream(0)
    story = Story(broker, await last_sequence(broker, stream))
    names = [subjects.commits(run) for run in (new_run(), new_run(), new_run())]
    names += [subjects.inbox(name.split(".")[2]) for name in names]
    lasts = dict.fromkeys(names, 0)

    async def append(name: str, expected: int | None) -> object:
        seq = await broker.append(name, b"%d" % chance.randrange(9), expected)
        lasts[name] = seq
        return story.count(seq)

    async def read(name: str, after: int) -> object:
        return [(story.count(s.seq), s.data) for s in await broker.read(stream, name, after)]

    async def one(question: Any) -> object:
        found = await question
        return found and (story.count(found.seq), found.data)

    for _ in range(OPERATIONS):
        index = chance.randrange(len(names))
        name, last = names[index], lasts[names[index]]
        wrong = max(0, last + chance.choice((-1, 1, 1)))
        somewhere = story.base + chance.randrange(OPERATIONS)
        kinds: dict[str, Callable[[], Any]] = {
            "append": lambda: append(name, last),  # noqa: B023
            "append on another": lambda: append(name, wrong),  # noqa: B023
            "append on none": lambda: append(name, 0),  # noqa: B023
            "append anyhow": lambda: append(name, None),  # noqa: B023
            "read": lambda: read(name, somewhere),  # noqa: B023
            "last": lambda: one(broker.last(stream, name)),  # noqa: B023
            "next": lambda: one(broker.next(stream, name, somewhere)),  # noqa: B023
        }
        kind = chance.choice(list(kinds))
        await story.ask(f"{kind} {index}", kinds[kind]())
    return story.said


async def batches(broker: Broker) -> Said:
    """Atomic batches: all members, or none."""
    stream = subjects.log_stream(0)
    story = Story(broker, await last_sequence(broker, stream))
    names = [subjects.commits(new_run()) for _ in range(3)]

    async def batch(
        expected: list[int], numbers: list[int], name: str, to: list[str] | None = None
    ) -> object:
        heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        reply = broker.expect(lambda message: heard.set_result(message.data), lambda: None)
        for place, (subject, condition, number) in enumerate(
            zip(to or names, expected, numbers, strict=True), 1
        ):
            headers = {
                "Nats-Batch-Id": name,
                "Nats-Batch-Sequence": str(number),
                "Nats-Expected-Last-Subject-Sequence": str(condition),
            }
            last = place == len(names)
            if last:
                headers["Nats-Batch-Commit"] = "1"
            where = reply if last else ""
            await broker.client.publish(subject, b"x", reply=where, headers=headers)
        async with asyncio.timeout(WITHIN_S):
            said = msgspec.json.decode(await heard)
        if "error" in said:
            return said["error"]["err_code"]
        return story.count(said["seq"]), said["count"]

    first = await story.ask("a batch", batch([0, 0, 0], [1, 2, 3], f"{new_run()}-a"))
    assert first == (3, 3)
    there = [story.base + 1, story.base + 2, story.base + 3]
    await story.ask("one stale member", batch([there[0], 0, there[2]], [1, 2, 3], f"{new_run()}-b"))
    for name in names:
        seq = (await broker.last(stream, name)).seq  # type: ignore[union-attr]
        story.said.append(("nothing was stored", story.count(seq)))
    await story.ask("the next", batch(there, [1, 2, 3], f"{new_run()}-c"))
    there = [seq + 3 for seq in there]
    twice = [names[0], names[1], names[0]]
    refused = batch([there[0], there[1], there[0]], [1, 2, 3], f"{new_run()}-d", twice)
    assert isinstance(await refused, int), "two of one subject, with a condition each"
    torn = batch(there, [1, 1, 3], f"{new_run()}-e")
    assert isinstance(await torn, int), "one was lost, and one came twice"
    for name in names:
        seq = (await broker.last(stream, name)).seq  # type: ignore[union-attr]
        story.said.append(("nothing was stored", story.count(seq)))
    return story.said


async def queues(place: SimPlace | BrokerPlace) -> Said:
    """One per subject; and what a holder may still say when a message is somebody else's."""
    worker, run = new_worker(), new_run()
    broker = await place.broker()
    queue = JetStreamQueue(broker, subjects.CALLS, lease_s=LEASE_S)
    await queue.ensure(consumers_of(worker))
    story = Story(broker, 0)
    subject = subjects.call(worker, "normal", run, "1-0", 1)
    taken: asyncio.Queue[Any] = asyncio.Queue()
    puller = await queue.pull([f"calls-{worker}-normal"], lambda _: 9, taken.put_nowait)

    async def next_() -> Any:
        async with asyncio.timeout(WITHIN_S):
            return await taken.get()

    await story.ask("put", queue.put(subject, b"a"))
    await story.ask("put again", queue.put(subject, b"b"))
    first = await next_()
    second = await next_()  # its lease ended
    story.said.append(("deliveries", first.delivered, second.delivered, second.data))
    await story.ask("put while in flight", queue.put(subject, b"c"))
    await first.progress()  # a stale holder's sign of life counts
    await first.ack()  # and so does its acknowledgement
    await until_accepted(queue, subject, b"next")
    third = await next_()
    story.said.append(("another", third.delivered, third.data))
    await second.ack()  # of a message that is gone: changes nothing
    await story.ask("put while another is in flight", queue.put(subject, b"d"))
    await third.nak()
    fourth = await next_()
    story.said.append(("handed back", fourth.delivered))
    await queue.withdraw(f"calls.{worker}.*.{run}.1-0.1")
    await fourth.progress()
    await fourth.nak()
    await story.ask("put after a withdrawal", queue.put(subject, b"e"))
    fifth = await next_()
    story.said.append(("a new one", fifth.delivered, fifth.data))
    await fifth.ack()
    await puller.close()
    return story.said


async def oddities(broker: Broker) -> Said:
    """What there is not."""
    story = Story(broker, 0)
    run = new_run()
    await story.ask("no message", broker.last(subjects.log_stream(0), subjects.commits(run)))
    await story.ask("nothing to read", broker.read(subjects.log_stream(0), subjects.inbox(run)))
    await story.ask("no stream", broker.request("$JS.API.STREAM.INFO.LOG-7"))
    await story.ask("nobody's subject", broker.append("nobody.takes.this", b"x"))
    purged = await broker.request("$JS.API.STREAM.PURGE.TASKS", {"filter": f"tasks.*.{run}"})
    story.said.append(("nothing to purge", purged["purged"], purged["success"]))
    return story.said


async def republished(place: SimPlace | BrokerPlace) -> Said:
    """What is stored in an inbox is heard, with its sequence and that of the one before."""
    log, other, run = await place.log(), await place.log(), new_run()
    broker = await place.broker()
    story = Story(broker, await last_sequence(broker, subjects.log_stream(0)))
    heard: asyncio.Queue[tuple[bytes, int, int]] = asyncio.Queue()
    hints = await log.hints(run, lambda *hint: heard.put_nowait(hint))
    await other.tail(run)
    for number in range(3):
        await other.post(run, b"%d" % number)
        async with asyncio.timeout(WITHIN_S):
            data, seq, before = await heard.get()
        story.said.append((data, story.count(seq), story.count(before)))
    await hints.close()
    return story.said


async def both(one_server: One, tell: Callable[[SimPlace | BrokerPlace], Any]) -> None:
    """Tell both servers the same, and compare what they say."""
    async with contextlib.AsyncExitStack() as stack:
        real = await tell(BrokerPlace(one_server, stack))
        simulated = await tell(SimPlace(stack))
    assert simulated == real


@pytest.mark.parametrize("seed", range(5))
async def test_appends_and_reads_by_chance(one_server: One, seed: int) -> None:
    async def tell(place: SimPlace | BrokerPlace) -> Said:
        return await by_chance(await place.broker(), seed)

    await both(one_server, tell)


async def test_atomic_batches(one_server: One) -> None:
    async def tell(place: SimPlace | BrokerPlace) -> Said:
        return await batches(await place.broker())

    await both(one_server, tell)


async def test_what_there_is_not(one_server: One) -> None:
    async def tell(place: SimPlace | BrokerPlace) -> Said:
        return await oddities(await place.broker())

    await both(one_server, tell)


async def test_queues_and_stale_holders(one_server: One) -> None:
    await both(one_server, queues)


async def test_republished_hints(one_server: One) -> None:
    await both(one_server, republished)
