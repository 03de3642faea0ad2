"""The supervisor: what it starts anew, and which processes a pool gets."""

from collections import Counter

import msgspec

from actors.programs import Connection, Declared, Health, Pulled, placed
from actors.supervisor import DEAF_S, MAX_SILENCES, PATIENCE_S, Supervisor
from protocol.actions import Pool, WorkerSpec

HOST = Declared(
    name="host-db-1",
    kind="worker",
    connection=Connection(url="nats://nowhere"),
    lease_s=10,
    specs=(WorkerSpec(name="query", host="db"), WorkerSpec(name="insert", host="db")),
)


class Actors:
    """One actor that is as the test says, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.state: Health | None = Health({}, connected=True)
        self.waiting: Counter[str] = Counter()
        self.replaced = 0
        self.stopped: list[str] = []

    def clock(self) -> float:
        return self.now

    async def ensure(self, declared: Declared) -> None:
        """It is there."""

    async def health(self, declared: Declared) -> Health | None:
        return self.state

    async def replace(self, declared: Declared) -> None:
        self.replaced += 1

    async def stop(self, declared: Declared) -> None:
        self.stopped.append(declared.name)

    async def backlog(self, declared: Declared, queue: str) -> int:
        return self.waiting[queue]

    def does(self, **queues: tuple[int, int]) -> None:
        """So much is done of each queue, and so many places are free."""
        pulled = {queue: Pulled(*said) for queue, said in queues.items()}
        self.state = Health(pulled, connected=True)


async def looked(actors: Actors, supervisor: Supervisor, after_s: float = 0.0) -> int:
    """How often it was started anew, after one more look."""
    actors.now += after_s
    await supervisor.look()
    return actors.replaced


async def test_an_actor_that_takes_nothing_of_one_queue_is_started_anew() -> None:
    actors = Actors()
    supervisor = Supervisor(actors, [HOST], actors.clock)
    actors.waiting["insert"] = 1
    actors.does(query=(1, 3), insert=(1, 3))
    assert await looked(actors, supervisor) == 0
    actors.does(query=(2, 3), insert=(1, 3))
    assert await looked(actors, supervisor, DEAF_S - 1) == 0
    assert await looked(actors, supervisor, 1) == 1, "what it does of another doesn't help"
    assert await looked(actors, supervisor, 1) == 1, "it has time again"


async def test_one_queue_that_is_full_or_empty_is_no_reason() -> None:
    actors = Actors()
    supervisor = Supervisor(actors, [HOST], actors.clock)
    actors.waiting["insert"] = 5
    actors.does(query=(1, 3), insert=(1, 0))
    for _ in range(3):
        assert await looked(actors, supervisor, DEAF_S) == 0


async def test_an_actor_that_does_not_answer_is_started_anew() -> None:
    actors = Actors()
    supervisor = Supervisor(actors, [HOST], actors.clock)
    actors.state = None
    for _ in range(MAX_SILENCES - 1):
        assert await looked(actors, supervisor, PATIENCE_S) == 0
    assert supervisor.missing
    assert await looked(actors, supervisor, PATIENCE_S) == 1


async def test_what_is_declared_anew_is_there_and_the_rest_is_ended() -> None:
    actors = Actors()
    other, third = (msgspec.structs.replace(HOST, name=name) for name in ("other", "third"))
    supervisor = Supervisor(actors, [HOST, other], actors.clock)
    await supervisor.look()
    assert not supervisor.missing
    await supervisor.declare([other, third])
    assert actors.stopped == [HOST.name]
    assert supervisor.missing == {"third": ""}, "the one that stays is not waited for again"
    await supervisor.look()
    assert not supervisor.missing


async def test_one_that_can_not_work_is_not_waited_for_as_one_that_starts() -> None:
    silent, broken = Actors(), Actors()
    silent.state = None
    broken.state = Health({}, connected=False, failed="there is no such module")
    found = []
    for actors, times in ((silent, 1), (silent, MAX_SILENCES), (broken, 1)):
        supervisor = Supervisor(actors, [HOST], actors.clock)
        for _ in range(times):
            await looked(actors, supervisor, PATIENCE_S + 1)
        found.append(supervisor.starting)
    assert found == [True, False, False]


async def test_what_servers_offer_by_now_is_told_by_actor() -> None:
    actors = Actors()
    supervisor = Supervisor(actors, [HOST], actors.clock)
    offered = (WorkerSpec(name="query", adapter="mcp:query"),)
    actors.state = Health({}, connected=True, offers=offered)
    await supervisor.look()
    assert supervisor.offers == {HOST.name: offered}


def test_workers_of_one_host_share_a_process_for_each_replica() -> None:
    pool = Pool(
        (
            WorkerSpec(name="query", host="db", replicas=2),
            WorkerSpec(name="alone", replicas=2),
            WorkerSpec(name="insert", host="db", replicas=2),
            WorkerSpec(name="team", kind="conductor"),
            WorkerSpec(name="db"),
        )
    )
    names = {actor: [spec.name for spec in specs] for actor, specs in placed(pool).items()}
    assert names == {
        "host-db-1": ["query", "insert"],
        "host-db-2": ["query", "insert"],
        "worker-alone-1": ["alone"],
        "worker-alone-2": ["alone"],
        "worker-db-1": ["db"],
    }
