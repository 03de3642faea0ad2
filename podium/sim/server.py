"""The simulated nats-server: subjects, JetStream's API, and every fault that a real one has.

It answers what `replay` and `actors` ask, in the words of the real one: conditional appends on one
exact subject, one message per subject in the queues, pull consumers with leases, batched direct
gets that any replica may answer, reads from the leader, purges, republished hints. Whatever stands
in its way (`Network`) decides about every single message, both ways.
"""

import heapq
import random
from collections.abc import Callable
from typing import Any, Final

import msgspec

from podium.sim.client import Client
from podium.sim.loop import VirtualLoop
from podium.sim.streams import NO_MESSAGE, Consumer, Demand, Kept, No, Stream, pattern
from podium.sim.switchboard import Switchboard
from podium.sim.wire import CONDITION, Headers, Message, Network, Published, Request

NO_STREAM: Final = No(10059, "stream not found", 404)
NO_LEADER: Final = No(10008, "JetStream system temporarily unavailable", 503)

_json: Final = msgspec.json.Encoder().encode


class Server(Switchboard):
    """One server, or a cluster that behaves as one; see `Switchboard` for what it is made with."""

    def __init__(self, loop: VirtualLoop, chance: random.Random, network: Network) -> None:
        super().__init__(loop, chance, network)
        self.streams: dict[str, Stream] = {}
        self.stored: Callable[[Kept], None] = lambda _: None
        """Called with each message that is stored, for whoever watches from above."""
        self.hushed_until = 0.0
        """Until when nothing is republished."""

    def create(self, config: dict[str, Any]) -> None:
        """Make a stream."""
        self.streams[config["name"]] = Stream(config)

    def received(self, client: Client, said: Published) -> None:
        """The network decides what becomes of it."""
        self.network.inward(self, client, said)

    # ------------------------------------------------------------------------------------- dispatch

    def take(self, client: Client, said: Published, silent: bool = False, lag_s: float = 0) -> None:
        """A message has arrived."""
        request = Request(
            client, said.subject, said.data, said.reply, said.headers or {}, silent, lag_s
        )
        subject = said.subject
        if subject.startswith("$JS.ACK."):
            self._acknowledged(subject, said.data)
        elif subject.startswith("$JS.API."):
            self._asked(request)
        else:
            stream = self.stream_of(subject)
            if stream is not None:
                self._append(stream, request)
            elif not self.say(subject, said.data, said.headers, reply=said.reply):
                self.answer(request, b"", {"Status": "503"})

    def stream_of(self, subject: str) -> Stream | None:
        """The stream that keeps a subject."""
        for stream in self.streams.values():
            if any(each.fullmatch(subject) for each in stream.subjects):
                return stream
        return None

    # --------------------------------------------------------------------------------------- append

    def _append(self, stream: Stream, request: Request) -> None:
        if self._leaderless(stream):
            return
        text = request.headers.get(CONDITION)
        expected = int(text) if text is not None else None
        batch = request.headers.get("Nats-Batch-Id")
        if batch is not None:
            self._stage(stream, request, batch, expected)
            return
        try:
            stream.check(request.subject, expected)
        except No as no:
            self.answer(request, _json({"error": no.body(), "stream": stream.name, "seq": 0}))
            return
        kept = self._store(stream, request.subject, request.data, request.headers)
        self.answer(request, b'{"stream":"%s","seq":%d}' % (stream.name.encode(), kept.seq))

    def refuse(self, client: Client, said: Published, code: int, text: str) -> None:
        """Answer an append with an error, whatever became of it."""
        request = Request(client, said.subject, said.data, said.reply, {}, False, 0)
        self.answer(request, _json({"error": No(code, text).body(), "seq": 0}))

    def _store(self, stream: Stream, subject: str, data: bytes, said: Headers) -> Kept:
        before, ttl = stream.last(subject), said.get("Nats-TTL")
        kept = stream.store(subject, data, self.loop.now, said)
        self.stored(kept)
        if ttl is not None:
            heapq.heappush(stream.ends, (self.loop.now + int(ttl), kept.seq))
            self.loop.post(self.loop.now + int(ttl), None, self._expire, stream)
        if stream.republishes:
            headers = {
                "Nats-Stream": stream.name,
                "Nats-Subject": subject,
                "Nats-Sequence": str(kept.seq),
                "Nats-Last-Sequence": str(before.seq if before else 0),
            }
            if self.loop.now >= self.hushed_until:
                self.say("hint." + subject.split(".", 2)[2], data, headers)
        for consumer in stream.consumers.values():
            if consumer.filter.fullmatch(subject):
                self.serve(stream, consumer)
        return kept

    def _expire(self, stream: Stream) -> None:
        stream.expire(self.loop.now)

    def _stage(self, stream: Stream, request: Request, batch: str, expected: int | None) -> None:
        members = stream.staged.setdefault(batch, [])
        whole = request.headers.get("Nats-Batch-Sequence") == str(len(members) + 1)
        members.append((request.subject, request.data, expected))
        if not whole:  # one was lost, or came twice: nothing that follows can mend it
            stream.torn.add(batch)
        if "Nats-Batch-Commit" not in request.headers:
            return
        del stream.staged[batch]
        try:
            if batch in stream.torn:
                raise No(10176, "atomic publish batch is incomplete")
            seen: set[str] = set()
            for subject, _, condition in members:
                if subject in seen and condition is not None:
                    raise No(10164, "wrong last sequence")  # only the first of a subject has one
                seen.add(subject)
                stream.check(subject, condition)
        except No as no:
            self.answer(request, _json({"error": no.body(), "stream": stream.name, "seq": 0}))
            return
        kept = [self._store(stream, subject, data, {}) for subject, data, _ in members]
        said = {"stream": stream.name, "seq": kept[-1].seq, "batch": batch, "count": len(kept)}
        self.answer(request, _json(said))

    def _leaderless(self, stream: Stream) -> bool:
        return self.loop.now < stream.down_until

    # ------------------------------------------------------------------------------------------ API

    def _asked(self, request: Request) -> None:
        verb, *rest = request.subject.removeprefix("$JS.API.").split(".")
        path = ".".join(rest)
        if verb == "DIRECT":
            self._direct_get(rest[1], request)
            return
        if verb == "CONSUMER" and path.startswith("MSG.NEXT."):
            self._demanded(rest[2], rest[3], request)
            return
        body = msgspec.json.decode(request.data) if request.data else {}
        try:
            said = self._api(f"{verb}.{path}", body)
        except No as no:
            said = {"error": no.body()}
        if said is not None:
            self.answer(request, _json(said))

    def _api(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """The answer of the API, or None if nobody answers."""
        if path == "STREAM.NAMES":
            return {"streams": [name for name in self.streams if name.startswith("LOG-")]}
        kind, _, rest = path.partition(".")
        words = rest.split(".")
        if kind == "CONSUMER" and words[0] == "CREATE":
            return self._consumer(self._led(words[1]), body["config"])
        if kind == "CONSUMER" and words[0] == "INFO":
            return self._led(words[1]).told(words[2])
        if kind == "STREAM" and words[0] == "CREATE":
            if words[1] not in self.streams:
                self.create(body)
            return {"config": body}
        stream = self._led(words[-1])
        match words[:-1]:
            case ["INFO"]:
                return self._info(stream, body)
            case ["UPDATE"]:
                return {"config": stream.config}
            case ["PURGE"]:
                return {"success": True, "purged": stream.purge(body["filter"])}
            case ["MSG", "GET"]:
                return {"message": self._leader_get(stream, body)}
            case _:
                raise ValueError(f"the simulated server has no {path}")

    def _led(self, name: str) -> Stream:
        stream = self.streams.get(name)
        if stream is None:
            raise NO_STREAM
        if self._leaderless(stream):
            raise NO_LEADER
        return stream

    def _info(self, stream: Stream, body: dict[str, Any]) -> dict[str, Any]:
        state = stream.state()
        said: dict[str, Any] = {"config": stream.config, "state": state}
        wanted = body.get("subjects_filter") if body else None
        if wanted:
            found = {
                subject: len(kept)
                for subject, kept in stream.by_subject.items()
                if pattern(wanted).fullmatch(subject)
            }
            state["subjects"], said["total"] = found, len(found)
            if body.get("offset"):
                state["subjects"] = {}
        return said

    def _leader_get(self, stream: Stream, body: dict[str, Any]) -> dict[str, Any]:
        if "last_by_subj" in body:
            kept = stream.last(body["last_by_subj"])
        else:
            found = stream.since(body["next_by_subj"], body["seq"], self.loop.now)
            kept = found[0] if found else None
        if kept is None:
            raise No(NO_MESSAGE, "no message found", 404)
        return {"subject": kept.subject, "seq": kept.seq, "data": kept.data}

    def _direct_get(self, name: str, request: Request) -> None:
        stream = self.streams.get(name)
        heard = self.heard(request.reply)
        if stream is None or request.silent or not heard:
            return
        body = msgspec.json.decode(request.data)
        until = self.loop.now - request.lag_s
        if self._leaderless(stream):  # a follower answers, with what it had
            until = min(until, stream.down_until - request.lag_s)
        found = stream.since(body["next_by_subj"], body["seq"], until)
        page = found[: body["batch"]]
        left = str(len(found) - len(page))
        messages = [
            Message(request.reply, kept.data, "", {"Nats-Sequence": str(kept.seq)}) for kept in page
        ]
        status = "204" if page else "404"
        messages.append(
            Message(request.reply, b"", "", {"Status": status, "Nats-Num-Pending": left})
        )
        for subscription in heard:
            self.deliver(subscription, *messages)

    # ------------------------------------------------------------------------------------ consumers

    def add_consumer(self, stream: str, config: dict[str, Any]) -> None:
        """Make a consumer."""
        self._consumer(self.streams[stream], config)

    def _consumer(self, stream: Stream, config: dict[str, Any]) -> dict[str, Any]:
        name, subject = config["name"], config["filter_subject"]
        consumer = stream.consumers.get(name)
        if consumer is None:
            consumer = Consumer(name, subject, config["ack_wait"] / 1e9)
            stream.consumers[name] = consumer
            kept = (
                each for each in stream.by_seq.values() if consumer.filter.fullmatch(each.subject)
            )
            consumer.ready.extend(each.seq for each in kept)
        consumer.ack_wait_s = config["ack_wait"] / 1e9
        return {"name": name, "config": config}

    def _demanded(self, name: str, consumer: str, request: Request) -> None:
        stream = self.streams[name]
        found = stream.consumers.get(consumer)
        if found is None:
            self.answer(request, b"", {"Status": "503"})
            return
        body = msgspec.json.decode(request.data)
        if "expires" not in body:
            self.answer(request, b"", {"Status": "400"})
            return
        until = self.loop.now + body["expires"] / 1e9
        demand = Demand(request.reply, body["batch"], until)
        found.waiting.append(demand)
        self.serve(stream, found)
        beat = body["idle_heartbeat"] / 1e9
        self.loop.post(self.loop.now + beat, None, self._beat, found, demand, beat)

    def _beat(self, consumer: Consumer, demand: Demand, beat: float) -> None:
        """Signs of life on a demand, until it is used up or expires."""
        if demand.left <= 0 or demand not in consumer.waiting:
            return
        if demand.until <= self.loop.now:
            consumer.waiting.remove(demand)
            self.say(demand.reply, b"", {"Status": "408"})
            return
        self.say(demand.reply, b"", {"Status": "100"})
        when = min(self.loop.now + beat, demand.until)
        self.loop.post(when, None, self._beat, consumer, demand, beat)

    def serve(self, stream: Stream, consumer: Consumer) -> None:
        """Deliver as long as there are messages and somebody wants them."""
        now = self.loop.now
        if self._leaderless(stream):
            return
        while consumer.waiting:
            kept = consumer.next(stream)
            if kept is None:
                break
            demand = consumer.take_demand(now, self.heard)
            if demand is None:
                consumer.again.appendleft(kept.seq)
                break
            count = consumer.counts[kept.seq] = consumer.counts.get(kept.seq, 0) + 1
            consumer.pending[kept.seq] = now + consumer.ack_wait_s
            consumer.delivered += 1
            consumer.last = max(consumer.last, kept.seq)
            place = f"{stream.name}.{consumer.name}.{count}.{kept.seq}.{consumer.delivered}"
            ack = f"$JS.ACK.{place}.0.0"
            self.say(demand.reply, kept.data, kept.headers, reply=ack, at=kept.subject)
        self._set_timer(stream, consumer)

    def _set_timer(self, stream: Stream, consumer: Consumer) -> None:
        if consumer.timer_at or not consumer.pending:
            return
        # Those that have ended already wait for somebody who wants them.
        ends = [until for until in consumer.pending.values() if until > self.loop.now]
        if ends:
            consumer.timer_at = min(ends)
            self.loop.post(consumer.timer_at, None, self._lapsed, stream, consumer)

    def _lapsed(self, stream: Stream, consumer: Consumer) -> None:
        consumer.timer_at = 0.0
        consumer.lapse(self.loop.now)
        self.serve(stream, consumer)

    def _acknowledged(self, subject: str, word: bytes) -> None:
        _, _, name, consumer_name, _, seq, *_ = subject.split(".")
        stream = self.streams[name]
        consumer = stream.consumers.get(consumer_name)
        if consumer is None or self._leaderless(stream):
            return
        number = int(seq)
        if word == b"+ACK":
            stream.remove(number)
        elif word == b"+WPI":
            if number in consumer.pending:
                consumer.pending[number] = self.loop.now + consumer.ack_wait_s
        elif word.startswith(b"-NAK") and number in consumer.pending:
            later = msgspec.json.decode(word[4:])["delay"] / 1e9 if word[4:] else 0.0
            self.loop.post(self.loop.now + later, None, self._handed_back, stream, consumer, number)

    def _handed_back(self, stream: Stream, consumer: Consumer, seq: int) -> None:
        if seq in consumer.pending and seq not in consumer.again:
            consumer.again.append(seq)
            self.serve(stream, consumer)

    # --------------------------------------------------------------------------------------- faults

    def election(self, names: list[str], seconds: float) -> None:
        """Streams have no leader for so long."""
        until = self.loop.now + seconds
        for name in names:
            stream = self.streams[name]
            stream.down_until = max(stream.down_until, until)
            for consumer in stream.consumers.values():
                self.loop.post(until, None, self._lapsed, stream, consumer)

    def restart(self, memory: list[str]) -> list[Client]:
        """All connections end, and what was kept in memory is gone; who was connected."""
        clients = self.disconnect_all()
        for stream in self.streams.values():
            for consumer in stream.consumers.values():
                consumer.waiting.clear()
        for name in memory:
            self.streams[name].purge(">")
        return clients

    def lapse(self, name: str) -> None:
        """Every lease of a stream ends, whether or not its holder lives."""
        stream = self.streams[name]
        for consumer in stream.consumers.values():
            for seq in consumer.pending:
                consumer.pending[seq] = self.loop.now
            consumer.lapse(self.loop.now)
            self.serve(stream, consumer)
