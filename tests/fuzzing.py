"""What a stranger with full rights on the broker says: a seeded stream of bad messages.

Noise, and real messages (captured from a run) bent in one or several places. What is made of a seed
and a corpus is always the same. `stranger` has the connection that says it.
"""

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from actors.admission import admit_call, admit_task
from protocol.actions import MAX_COUNT, Json, Report
from protocol.codec import decode_message, decode_withdrawal, digest
from protocol.errors import InvalidData
from protocol.inbox import Signal
from protocol.limits import MAX_MESSAGE_BYTES
from protocol.subjects import run_id
from replay.chain import Aside, Stored, read_inbox
from tests.fuzz_pool import PLANNED

DEPTH: Final = 10_000
"""Levels of lists or objects: what a recursive parser dies of."""

# ------------------------------------------------------------------------------------ the messages

Kind: TypeAlias = Literal[
    "commits", "inbox", "tasks", "calls", "blobs", "heads",
    "live", "withdraw", "stats", "hint", "answers",
]  # fmt: skip
"""What a subject is for; ``answers`` are the actors' own reply inboxes."""

STORED: Final[tuple[Kind, ...]] = ("commits", "inbox", "tasks", "calls", "blobs", "heads")
"""Kinds that a stream takes, and answers."""

WEIGHTS: Final[dict[Kind, int]] = {
    "commits": 16, "inbox": 22, "tasks": 12, "calls": 12, "blobs": 5, "heads": 5,
    "live": 4, "withdraw": 8, "stats": 3, "hint": 6, "answers": 7,
}  # fmt: skip
"""How often each kind is said, in a hundred."""

HUGE: Final = (70_000, 300_000, MAX_MESSAGE_BYTES - 1_000)
"""Bytes of messages that are only large."""

NO_RUNS: Final = (
    b"x",
    b"*",
    b">",
    b'a"b',
    b"\xff\xfe",
    b"ILOU",
    b"0" * 12,
    b"0" * 14,
    b"-1",
    b"\\",
)
"""What stands where a run's id should."""

HEADERS: Final = (
    b"ab",
    b"NATS/1.0",
    b"NATS/1.0\r\n\r\n",
    b"NATS/1.0 \xff\xfe\xfd\r\n\r\n",
    b"NATS/1.0 404\r\n\r\n",
    b"NATS/1.0 500 no\r\n\r\n",
    b"NATS/1.0\r\nStatus: 404\r\n\r\n",
    b"NATS/1.0\r\nStatus: 204\r\nNats-Num-Pending: 0\r\n\r\n",
    b"NATS/1.0\r\nNats-Sequence: 99999999\r\nNats-Last-Sequence: 0\r\n\r\n",
    b"NATS/1.0\r\n\xff: \xff\r\n: :\r\nNo colon\r\n\r\n",
)
"""Headers of a stranger: none, the server's own, and noise."""


class Said(NamedTuple):
    """One message of the stranger's."""

    kind: Kind
    tag: str
    """What is counted together: the kind, and who is to set it aside."""
    subject: bytes
    data: bytes
    headers: bytes | None = None


class Aims(NamedTuple):
    """Whom the stranger aims at; lists that may grow while it speaks."""

    legitimate: Sequence[str]
    """Runs in flight whose inboxes it may write to."""
    flooded: Sequence[str]
    """Runs in flight whose commits it may write to, too."""
    over: Sequence[str]
    """Runs that have ended."""
    worker: str
    """A worker that is hosted."""
    answers: Sequence[str]
    """Reply subjects that the actors have used."""


class Fuzzer:
    """Bad messages without end.

    Args:
        seed: What all chance comes from.
        corpus: Real messages of each kind.
        aims: Whom to aim at.
    """

    def __init__(self, seed: int, corpus: Mapping[Kind, Sequence[bytes]], aims: Aims) -> None:
        self.random = random.Random(seed)
        self.corpus, self.aims = corpus, aims
        self.tails: dict[str, bytes] = {}
        """The last commit seen of each run."""
        self._all = [data for messages in corpus.values() for data in messages]
        self._fresh = 0

    def say(self, count: int) -> Iterator[Said]:
        """So many messages."""
        kinds = list(WEIGHTS)
        for kind in self.random.choices(kinds, [WEIGHTS[kind] for kind in kinds], k=count):
            yield self._one(kind)

    def _one(self, kind: Kind) -> Said:
        made: Said = getattr(self, f"_{kind}")()
        if made.headers is None and kind != "answers" and self.random.random() < 0.08:
            return made._replace(headers=self.random.choice(HEADERS))
        return made

    def hostile_tasks(self, count: int) -> dict[str, bytes]:
        """Tasks that a conductor takes, by run; bent where it doesn't look."""
        tasks: dict[str, bytes] = {}
        starts = [task for task in self.corpus["tasks"] if b'"start"' in task]
        while len(tasks) < count:
            run = run_id(self.random.randbytes(8))
            data = _for_run(run, self.random.choice(starts))
            for _ in range(self.random.choice((1, 2, 3))):
                data = self.random.choice((_retype, _retype, _flip))(self.random, data)
            if not _task_bad(f"tasks.normal.{run}".encode(), data):
                tasks[run] = data
        return tasks

    # -------------------------------------------------------------------------------- by subject

    def _run(self) -> str:
        """A run of nobody's."""
        self._fresh += 1
        shard = 31 if self.random.random() < 0.1 else 0
        return run_id(self.random.randbytes(8), shard)

    def _commits(self) -> Said:
        choice = self.random.random()
        if choice < 0.1:
            subject = b"log.0." + self.random.choice(NO_RUNS) + b".c"
            return Said("commits", "nowhere", subject, self._body("commits"))
        run = self._pick(self.aims.over if choice < 0.5 else self.aims.flooded)
        return Said("commits", "commits", f"log.0.{run}.c".encode(), self._unchained(run))

    def _unchained(self, run: str) -> bytes:
        """A commit that is none, or one that follows nothing that is there."""
        tail = self.tails.get(run)
        if tail is None or self.random.random() < 0.7:
            return self._body("commits")
        try:
            commit = json.loads(tail)
        except ValueError:  # overheard, and the stranger's own
            return tail
        changes: list[dict[str, Json]] = [
            {"n": commit["n"] + 1, "prev": "0" * 32},
            {"n": commit["n"] + 1, "prev": "0" * 32, "epoch": commit["epoch"] + 1},
            {"n": commit["n"] + 2, "prev": digest(tail)},
            {"n": commit["n"] + 1, "prev": digest(tail), "epoch": commit["epoch"] + 7},
            {"n": commit["n"] + 1, "prev": digest(tail), "at": commit["at"] - 60_000},
            {"n": commit["n"] + 1, "prev": digest(tail), "run": self._run()},
            {},
        ]
        events = [{"type": "RunCancelled", "by": "stranger"}]
        return json.dumps(commit | {"events": events} | self.random.choice(changes)).encode()

    def _inbox(self) -> Said:
        choice = self.random.random()
        if choice < 0.08:
            subject = b"log.0." + self.random.choice(NO_RUNS) + b".i"
            return Said("inbox", "nowhere", subject, self._body("inbox"))
        run = self._pick(self.aims.over) if choice < 0.4 else self._pick(self.aims.legitimate)
        data = self._odd_report(run) if self.random.random() < 0.15 else self._body("inbox", run)
        where = "inbox" if isinstance(read_inbox(run, Stored(1, data)), Aside) else "heard"
        if where == "heard" and not harmless(data):
            data, where = b"", "inbox"
        return Said("inbox", where, f"log.0.{run}.i".encode(), data)

    def _odd_report(self, run: str) -> bytes:
        """A report that is one, of a call that was never made, with a blob that is nowhere."""
        r = self.random
        report: dict[str, Json] = {
            "type": "report", "run": run, "call": r.choice(("77-0", "1-77", "x", "")),
            "attempt": r.choice((1, 2, MAX_COUNT)), "status": "OK", "value": r.random(),
            "spend": {"tokens": MAX_COUNT},
        }  # fmt: skip
        if r.random() < 0.5:
            report["value"] = None
            report["blob"] = {"sha256": r.choice(("*", "0" * 64)), "size": 10**15}
        return json.dumps(report).encode()

    def _tasks(self) -> Said:
        choice = self.random.random()
        priority = self.random.choice((b"high", b"normal"))
        name = (
            self.random.choice(NO_RUNS) + b"%d" % self.random.randrange(10**6)
            if choice < 0.2
            else self._run().encode()
        )
        data = self._body("tasks", name.decode(errors="replace"))
        subject = b"tasks." + priority + b"." + name
        return Said("tasks", "tasks", subject, data if _task_bad(subject, data) else b"{}")

    def _calls(self) -> Said:
        hosted = self.random.random() < 0.7
        worker = self.aims.worker if hosted else "nobody"
        attempt = self.random.choice(("1", "0", "-1", "x", "9" * 30))
        place = f"{self._run()}.1-{self.random.randrange(9)}.{attempt}"
        subject = f"calls.{worker}.normal.{place}".encode()
        data = self._body("calls")
        if not _call_bad(subject, data):
            data = b"[]"
        return Said("calls", "calls" if hosted else "undeliverable", subject, data)

    def _blobs(self) -> Said:
        name = self.random.choice(NO_RUNS) + b"%d" % self.random.randrange(10**6)
        return Said("blobs", "blobs", b"blobs." + name + b".0", self._body("blobs"))

    def _heads(self) -> Said:
        name = self.random.choice(NO_RUNS) + b"%d" % self.random.randrange(10**6)
        return Said("heads", "heads", b"heads." + name, self._body("commits"))

    def _live(self) -> Said:
        return Said("live", "live", f"live.{self._run()}".encode(), self._body("inbox"))

    def _withdraw(self) -> Said:
        data = self._body("withdraw")
        if not _withdrawal_bad(data):
            data = b"null"
        return Said("withdraw", "withdraw", f"withdraw.{self.aims.worker}".encode(), data)

    def _stats(self) -> Said:
        return Said("stats", "stats", b"stats", self._body("stats"))

    def _hint(self) -> Said:
        run = self._pick(self.aims.legitimate)
        numbers = b"NATS/1.0\r\nNats-Sequence: 9000000\r\nNats-Last-Sequence: 0\r\n\r\n"
        where = self.random.choice("ci")
        return Said("hint", "hint", f"hint.{run}.{where}".encode(), self._body("inbox"), numbers)

    def _answers(self) -> Said:
        """On the subject on which an actor waits for an answer, or soon will."""
        prefix, _, number = self._pick(self.aims.answers).rpartition(".")
        guess = int(number) + self.random.randrange(20) if number.isdecimal() else 0
        data = self._body("stats")
        return Said("answers", "answers", f"{prefix}.{guess}".encode(), data)

    def _pick(self, among: Sequence[str]) -> str:
        return self.random.choice(among) if among else run_id(self.random.randbytes(8))

    # ------------------------------------------------------------------------------------- bodies

    def _body(self, kind: Kind, run: str = "") -> bytes:
        r = self.random
        choice = r.random()
        if choice < 0.15:
            return r.randbytes(r.randrange(200))
        if choice < 0.153:
            return r.choice((b"", b"[", b'"')) + r.randbytes(1) * r.choice(HUGE)
        if choice < 0.17:
            opening = r.choice((b"[", b'{"a":', b'[{"a":'))
            return opening * DEPTH + r.choice((b"", b"1" + b"]" * DEPTH))
        if choice < 0.2:
            return r.choice(self._all)  # real, and in the wrong place
        data = r.choice(self.corpus.get(kind) or self._all)
        for _ in range(r.choice((1, 1, 1, 2, 4))):
            data = r.choice(_BENDS)(r, data)
        if run and r.random() < 0.5:  # as if it were for this run
            data = _for_run(run, data)
        return data


_RUN_FIELD: Final = re.compile(rb'"run": ?"[^"]*"')


def _for_run(run: str, data: bytes) -> bytes:
    named = b'"run":' + json.dumps(run).encode()
    return _RUN_FIELD.sub(lambda _: named, data, count=1)


_NUMBERS: Final = (
    -1, 0, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, -0.0, 1e308, 1.5, float("nan"), float("inf"),
)  # fmt: skip
_VALUES: Final[tuple[Json, ...]] = (
    None,
    True,
    "",
    "\ud800",
    "\x00",
    "💥" * 100,
    [],
    {},
    [[]],
    {"": None},
    *_NUMBERS,
)


def _flip(r: random.Random, data: bytes) -> bytes:
    if not data:
        return b"\x00"
    bent = bytearray(data)
    for _ in range(r.choice((1, 1, 3, 20))):
        bent[r.randrange(len(bent))] ^= 1 << r.randrange(8)
    return bytes(bent)


def _cut(r: random.Random, data: bytes) -> bytes:
    return data[: r.randrange(len(data) + 1)]


def _splice(r: random.Random, data: bytes) -> bytes:
    at = r.randrange(len(data) + 1)
    noise = r.choice((b"\xff\xfe", b"\x00", b"NaN", b"-", b"]}", b'"type":"report",', b"1e999,"))
    return data[:at] + noise + data[at:]


def _double(r: random.Random, data: bytes) -> bytes:
    """The same key twice, or the whole twice."""
    if data.startswith(b"{") and len(data) > 2:
        return b"{" + r.choice((b'"type":1,', b'"run":[],', b'"n":-1,')) + data[1:]
    return data + data


def _retype(r: random.Random, data: bytes) -> bytes:
    """One value somewhere, of another type or out of range."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _flip(r, data)
    if not isinstance(value, dict | list):
        return _flip(r, data)
    node = value
    for _ in range(r.randrange(1, 6)):
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = r.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and r.random() < 0.7:
            node = node[key]
            continue
        node[key] = r.choice(_VALUES)
        break
    return json.dumps(value).encode(errors="surrogatepass") if value else b"{}"


def _rename(r: random.Random, data: bytes) -> bytes:
    """An unknown tag, or a field that nobody knows."""
    return re.sub(rb'"(type|kind|status)":"', rb'"\1":"Un', data, count=r.randrange(1, 3))


_BENDS: Final[tuple[Callable[[random.Random, bytes], bytes], ...]] = (
    _flip, _cut, _splice, _double, _retype, _retype, _retype, _rename,
)  # fmt: skip


def harmless(data: bytes) -> bool:
    """Whether a message that reads as one for this run can't change what the run answers.

    A well-formed signal is somebody's wish, and a well-formed report of an open call its result,
    whoever wrote them: only rights on the broker keep strangers from either.
    """
    message = decode_message(data)
    if isinstance(message, Signal):
        return False
    if isinstance(message, Report):
        return message.call not in PLANNED or message.attempt == 0
    return True


def _task_bad(subject: bytes, data: bytes) -> bool:
    return _raises(lambda: admit_task(subject.decode(errors="replace"), data))


def _call_bad(subject: bytes, data: bytes) -> bool:
    return _raises(lambda: admit_call(subject.decode(), data))


def _withdrawal_bad(data: bytes) -> bool:
    return _raises(lambda: decode_withdrawal(data))


def _raises(read: Callable[[], object]) -> bool:
    try:
        read()
    except InvalidData:
        return True
    return False
