"""No secret is ever stored or sent, whoever says it; and a reference works where it should.

A real server, the workers in a process of their own that alone holds the secret, and a tap on the
wire between them and the broker: every byte of every message and header goes through it.
"""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from actors.jetstream_queue import JetStreamQueue, consumers_of
from actors.programs import Connection, Declared, start
from podium.client import Client
from protocol import subjects
from protocol.actions import Pool, Report, WorkerSpec
from protocol.codec import encode
from protocol.decisions import PolicySpec, Task
from protocol.events import Edit, RunStarted
from protocol.inbox import Label
from protocol.redaction import Redactor
from protocol.secret_forms import EVERYTHING, Redaction
from replay.chain import RunLog
from replay.forks import failure
from replay.history import entries
from replay.jetstream_log import JetStreamLog
from replay.streams import ensure_streams
from tests.broker import One, r1
from tests.endpoint import Endpoint
from tests.integration import secret_pool
from tests.integration.secret_pool import PLANTED, REFERENCE, VALUE
from tests.places import connected

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60.0
REDACT = Redaction(names=("pin",), patterns=(r"EMP-[A-Z0-9-]+",))
CANARY = "canary-that-is-no-secret"
"""Told like everything else: the search that finds no secret must find this."""


class Tap:
    """A line to the broker that keeps what goes over it."""

    def __init__(self, url: str) -> None:
        self.host, _, port = url.rpartition("//")[2].rpartition(":")
        self.port = int(port)
        self.heard = bytearray()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Its address."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self.host, self.port)
        ways = (self._pass(reader, back), self._pass(there, writer))
        await asyncio.gather(*ways, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                self.heard += data
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[One]:
    with r1(folder=tmp_path / "nats") as one:
        yield one


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with Endpoint(key=PLANTED["key"]) as endpoint:
        monkeypatch.setenv("OPENAI_API_KEY", PLANTED["key"])
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
        yield endpoint


@contextlib.asynccontextmanager
async def deployment(
    server: One, url: str, pool: Pool, log: Path, redact: Redaction = REDACT
) -> AsyncIterator[Client]:
    """A conductor here, the workers in a process of their own, all over ``url``.

    What ``redact`` says is a secret to all of them, and to whoever gives them tasks.
    """
    owner = await connected(server, "conductor")
    await ensure_streams(owner)
    tasks = JetStreamQueue(owner, subjects.TASKS, lease_s=10)
    await tasks.ensure(consumers_of("tasks"))
    calls = JetStreamQueue(owner, subjects.CALLS, lease_s=10)
    for spec in pool.workers:
        await calls.ensure(consumers_of(spec.name))

    def declared(name: str, spec: WorkerSpec | None) -> Declared:
        user, password = server.credentials("conductor" if spec is None else "worker")
        return Declared(
            name=name,
            kind="conductor" if spec is None else "worker",
            connection=Connection(url=url, user=user, password=password),
            lease_s=10,
            policies=(secret_pool.POLICY.name,),
            specs=() if spec is None else (spec,),
            redact=redact,
        )

    workers = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.secret_worker", str(log)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PODIUM_SECRET_DB": VALUE},
    )
    assert workers.stdin is not None
    assert workers.stdout is not None
    hosted = [declared(f"worker-{spec.name}", spec) for spec in pool.workers]
    workers.stdin.write(msgspec.json.encode(hosted) + b"\n")
    conductor = await start(declared("conductor-1", None))
    try:
        assert await asyncio.wait_for(workers.stdout.readline(), LIMIT_S) == b"ready\n"
        yield Client(JetStreamLog(owner), tasks, redactor=Redactor(redact))
    finally:
        await conductor.stop()
        workers.stdin.close()
        await workers.wait()
        await owner.close()


async def played(client: Client, pool: Pool, policy: PolicySpec, canary: str = "") -> RunLog:
    """A run that ended, told a secret at each occasion."""
    task = Task(
        text=f"Use {PLANTED['openai']} at {secret_pool.URL}. {canary}",
        inputs={"password": PLANTED["password"], "note": [f"Bearer {PLANTED['bearer']}"]},
        check={"aws": PLANTED["aws"]},
    )
    run = await client.submit(task, pool, policy)
    async with asyncio.timeout(LIMIT_S):
        await client.result(run)
    return await client.log(run)


def secrets_in(data: bytes) -> list[str]:
    """Which secrets stand there, however they are written."""
    values = [*PLANTED.values(), VALUE, VALUE.replace('"', '\\"'), VALUE.replace("/", "%2F")]
    return [value for value in values if value.encode() in data]


def stored(server: One) -> bytes:
    """Every byte that the server keeps on disk."""
    files = [path for path in server.folder.rglob("*") if path.is_file()]
    return b"\0".join(path.read_bytes() for path in files)


async def test_no_secret_is_stored_or_sent_and_references_work(
    server: One, endpoint: Endpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.say(f"I used {PLANTED['openai']} with {PLANTED['key']}.")
    endpoint.refuse(400, f"bad key {PLANTED['key']} in {secret_pool.HEADERS} for {secret_pool.URL}")
    pool = secret_pool.pool(endpoint.url)
    tap, log_file = Tap(server.url), tmp_path / "workers.log"
    async with tap.open() as url, deployment(server, url, pool, log_file) as client:
        log = await played(client, pool, secret_pool.POLICY, CANARY)
        asked = [request.body["messages"][-1]["content"] for request in endpoint.requests]
        queued = await client.submit("Wait.", pool, PolicySpec(name="nobody"))
        await client.signal(
            queued, "cancel", reason=f"leaked {PLANTED['github']}, {PLANTED['own']}"
        )
        label = Label(run=log.run, key="password", value=PLANTED["password"], by="ada")
        await client._log.post(log.run, encode(Redactor(REDACT).message(label)))
    held = stored(server)
    assert CANARY.encode() in held
    assert CANARY.encode() in tap.heard
    assert REFERENCE.encode() in held
    assert secrets_in(held) == []
    assert secrets_in(bytes(tap.heard)) == []
    assert secrets_in(log_file.read_bytes()) == []
    assert secrets_in(caplog.text.encode()) == []
    assert not any(secrets_in(text.encode()) for text in asked), "a worker sees what is stored"

    reports = [entry.message for entry in log.inbox if isinstance(entry.message, Report)]
    by_worker = {log.state().calls[report.call].call.worker: report for report in reports}
    fetched = by_worker["fetch"].value
    assert fetched["proof"] == sha256(VALUE.encode()).hexdigest(), "the tool got the value"
    assert fetched["echo"].endswith(f"with {REFERENCE}")
    assert fetched["headers"]["Accept"] == "text/html", "what is no secret stays"
    assert by_worker["fail"].value.startswith(f"ConnectionError: 'db://{REFERENCE}@h'")
    assert by_worker["environment"].value == REFERENCE
    assert by_worker["large"].blob is not None
    assert by_worker["undeclared"].status == "PARSE_ERR"
    assert 'secrets = ["DB"]' in by_worker["undeclared"].value
    assert by_worker["writer"].value.startswith("I used [redacted:openai_key] with ")
    assert by_worker["refused"].status == "EXEC_ERR"
    assert log.state().outcome == "finished"


async def test_what_a_model_says_is_redacted_before_it_is_decided_on(
    server: One, endpoint: Endpoint, tmp_path: Path
) -> None:
    arguments = msgspec.json.encode(
        {"url": secret_pool.URL, "headers": {"X-Db": REFERENCE, **secret_pool.HEADERS}}
    )
    endpoint.refuse(500, f"no: {PLANTED['openai']} {secret_pool.HEADERS}")
    endpoint.say(f"With Bearer {PLANTED['bearer']}", calls=[("c1", "fetch", arguments.decode())])
    endpoint.say(f"Done: {PLANTED['aws']}, {PLANTED['key']}")
    pool = Pool((secret_pool.spec_of(secret_pool.pool(endpoint.url), "fetch"),))
    tap = Tap(server.url)
    async with tap.open() as url, deployment(server, url, pool, tmp_path / "workers.log") as client:
        log = await played(client, pool, PolicySpec(name="openai:m", dialect="openai"))
    assert log.state().answer == "Done: [redacted:aws_key], [redacted:OPENAI_API_KEY]"
    assert log.state().calls["1-0"].status == "OK"
    assert secrets_in(stored(server)) == []
    assert secrets_in(bytes(tap.heard)) == []
    prompts = [msgspec.json.encode(request.body) for request in endpoint.requests]
    assert len(prompts) == 3
    assert not any(map(secrets_in, prompts)), "what is stored is what is used"


async def test_forks_hide_what_their_origin_recorded_where_nobody_declares_it(
    server: One, endpoint: Endpoint, tmp_path: Path
) -> None:
    for number in range(8):
        endpoint.say(f"I used {PLANTED['openai']}, {PLANTED['own']}, {number}.")
    pool = secret_pool.pool(endpoint.url)
    async with deployment(server, server.url, pool, tmp_path / "workers.log") as client:
        log = await played(client, pool, secret_pool.POLICY)
    assert log.state().redact == REDACT
    tap, found = Tap(server.url), failure(log)
    assert found is not None
    async with (
        tap.open() as url,
        deployment(server, url, pool, tmp_path / "workers.log", EVERYTHING) as client,
        asyncio.timeout(LIMIT_S),
    ):
        edit = Edit("task.text", f"{CANARY}, {PLANTED['own']}, pin='{PLANTED['pin']}'")
        reruns = await client.fork(
            log.run, found.at, reopened=found.reopened, reason=f"again for {PLANTED['own']}"
        )
        first = next(e.number for e in entries(log) if isinstance(e.event, RunStarted))
        forks = await client.fork(log.run, first + 1, edits=(edit,))
        for run in (*reruns, *forks):
            await client.result(run)
            again = await client.log(run)
            assert again.state().redact == REDACT
            assert any(isinstance(each.message, Report) for each in again.inbox)
            assert (await client.verify(run)).outcome == "sound"
    held = stored(server)
    assert CANARY.encode() in held
    assert b"again for [redacted:pattern_1]" in held
    assert secrets_in(held) == []
    assert secrets_in(bytes(tap.heard)) == []


def test_the_search_finds_what_is_planted(server: One, tmp_path: Path) -> None:
    (server.folder / "planted").write_bytes(f"x{PLANTED['own']}y".encode())
    assert secrets_in(stored(server)) == [PLANTED["own"]]


@pytest.fixture(autouse=True)
def all_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
