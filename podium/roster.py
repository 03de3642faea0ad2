"""What a deployment hosts, kept in step with the registry of workers while runs go.

Hosted is what is offered; what a change has registered, until it was seen to work or not to; and
every earlier definition that somebody calls, for a while: a run may have recorded it long ago.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from actors.jetstream_queue import JetStreamQueue, consumers_of
from actors.programs import now_ms, placed
from actors.ray_messages import Looked
from podium.checks import check_pool
from podium.pooloffers import Offers, discovers, rediscovered
from protocol import registry as rules
from protocol import subjects
from protocol.actions import UNHOSTED, Pool, WorkerSpec
from protocol.errors import Busy, Conflict, InvalidData, PodiumError, Usage
from protocol.limits import MAX_DETAIL_CHARS
from protocol.redaction import Redactor
from protocol.registry import EMPTY, Registered, Registry
from replay.broker import Broker, Refused, Unanswered
from replay.connection import listen
from replay.registry_log import JetStreamRegistry

logger = logging.getLogger("podium.daemon")

LOOK_S: Final = 10.0
"""Seconds between two looks at the registry by which a lost hint is noticed."""

EARLIER_LOOK_S: Final = 1.0
"""Seconds between two looks at the calls of earlier definitions: a run that has one waits as long,
and for a process to start."""

PAUSE_S: Final = 2.0
"""Seconds before a registry that can't be followed is tried again."""

TRY_S: Final = 120.0
"""Seconds in which all that a change registers has to work: as at the start of a deployment."""

LINGER_S: Final = 600.0
"""Seconds that an earlier definition is hosted after the last call of it was seen: longer than the
sessions that are kept for a run between its calls."""

MAX_EARLIER: Final = 256
"""Earlier definitions, the latest, whose calls are looked at: a question to the broker each, while
there are any calls."""


class Hosts(Protocol):
    """What hosts workers: a `Cluster`, or a test."""

    news: asyncio.Event
    """Set when there is something else to tell of the actors."""

    @property
    def looked(self) -> Looked | None:
        """How those actors are that were declared last; None while nobody knows."""
        ...


class Roster:
    """Which workers a deployment hosts.

    Args:
        cluster: Whose actors host them.
        declare: Has the cluster host what is to be `hosted`.
        changed: Called when something else is offered.
        redactor: What no error may say.
        secrets: Folder or file with the secrets that workers declare.
        monotonic: Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        cluster: Hosts,
        *,
        declare: Callable[[], None],
        changed: Callable[[], None],
        redactor: Redactor,
        secrets: str = "",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._declare, self._changed = cluster, declare, changed
        self._redactor, self._secrets = redactor, secrets
        self._monotonic = monotonic
        self.registry: Registry = EMPTY
        self.required: tuple[WorkerSpec, ...] = ()
        """What has to work for the deployment to start at all."""
        self._called: dict[str, float] = {}
        """Earlier definitions that are hosted, and when a call of each was last seen."""
        self._followed = False
        self._pulled: set[str] = set()
        """Definitions whose queues have consumers."""
        self._tried: tuple[int, float] = (0, 0.0)
        """The change that is tried, and since when."""
        self._heard: dict[str, tuple[WorkerSpec, ...]] = {}
        """What actors have told of their servers, as far as that has been dealt with."""
        self._trouble = ""
        """Why the registry can't be followed."""
        self._wake = asyncio.Event()

    # ------------------------------------------------------------------------------------- at first

    async def begin(
        self, log: JetStreamRegistry, pool: Pool, folder: str, tables: Mapping[str, str]
    ) -> None:
        """Have a pool tried. What was being tried when a deployment ended comes to nothing.

        Raises:
            Unreachable, InvalidData: See `RegistryLog`.
        """
        self._take(await log.read())
        if self.registry.pending is not None:
            await self._say(log, "the deployment ended before it was known")
        said = rules.change(
            self.registry, pool, at=now_ms(), by="podium", folder=folder, tables=tables
        )
        if said is not None:
            self._take(await log.append(said))
        self.required = self.registry.tried

    async def settle(self, log: JetStreamRegistry, why: str) -> None:
        """Say what came of what is tried; "" if all of it works."""
        if self.registry.pending is not None:
            await self._say(log, why)

    async def _say(self, log: JetStreamRegistry, why: str) -> None:
        said = rules.verdict(self.registry, why[:MAX_DETAIL_CHARS], at=now_ms(), by="podium")
        self._take(await log.append(said))

    def _take(self, registry: Registry) -> None:
        was, self.registry = self.registry, registry
        if not self._followed:  # nobody has called what is hosted yet
            return
        if was.offered != registry.offered:
            self._changed()
        earlier, now = registry.earlier, self._monotonic()
        self._called |= dict.fromkeys(rules.places(was.offered) & earlier.keys(), now)

    # -------------------------------------------------------------------------------------- to host

    @property
    def hosted(self) -> list[Registered]:
        """The definitions that actors have to host.

        A process has the same ones for as long as it is needed: it gets no more once it is there.
        """
        registry = self.registry
        registered = registry.registered
        specs = (*registry.offered, *registry.tried)
        places = [spec.place for spec in specs if spec.kind not in UNHOSTED]
        places += [place for place in registry.earlier if place in self._called]
        hosts = {registered[place].spec.host for place in places} - {""}
        for place, each in registered.items():
            if each.worked and each.spec.host in hosts:
                places.append(place)
        return [registered[place] for place in dict.fromkeys(places)]

    @property
    def earlier(self) -> list[Registered]:
        """The definitions that runs may have and new ones don't get; the latest."""
        return [*self.registry.earlier.values()][-MAX_EARLIER:]

    def those(self, specs: Iterable[WorkerSpec]) -> list[Registered]:
        """Some definitions, as they were registered."""
        registered = self.registry.registered
        return [registered[s.place] for s in specs if s.kind not in UNHOSTED]

    # ------------------------------------------------------------------------------------ to follow

    async def keep(self, connect: Callable[[], Awaitable[Broker]], lease_s: float) -> None:
        """Follow the registry until cancelled.

        Args:
            connect: Opens a connection with a conductor's rights.
            lease_s: Of the calls' queue.
        """
        while True:
            broker: Broker | None = None
            try:
                broker = await connect()
                await self._follow(broker, lease_s)
            except PodiumError as error:
                if error.message != self._trouble:  # what lasts is said once
                    logger.warning("the registry of workers: %s; %s", error.message, error.hint)
                self._trouble = error.message
            except Exception:
                logger.exception("the registry of workers is followed again")
            finally:
                if broker is not None:
                    await broker.close()
            await asyncio.sleep(PAUSE_S)

    async def _follow(self, broker: Broker, lease_s: float) -> None:
        self._followed = True
        log = JetStreamRegistry(broker)
        calls = JetStreamQueue(broker, subjects.CALLS, lease_s=lease_s)
        listening = await listen(broker.client, subjects.REGISTRY, lambda _: self._wake.set())
        broker.reconnected.append(self._wake.set)
        try:
            while True:
                await self._step(log, calls)
                self._trouble = ""
                await self._rest()
        finally:
            await listening.close()

    async def _rest(self) -> None:
        """Until there may be something to do."""
        waits = LOOK_S
        if self.registry.pending is not None or self.registry.earlier:
            waits = EARLIER_LOOK_S
        tasks = {asyncio.create_task(each.wait()) for each in (self._wake, self._cluster.news)}
        try:
            await asyncio.wait(tasks, timeout=waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        self._wake.clear()
        self._cluster.news.clear()

    async def _step(self, log: JetStreamRegistry, calls: JetStreamQueue) -> None:
        self._take(await log.read())
        await self._look_at_calls(calls.broker)
        for place in {each.spec.place for each in self.hosted} - self._pulled:
            await calls.ensure(consumers_of(place))
            self._pulled.add(place)
        self._declare()
        await self._judge(log)
        self._declare()
        for place in self._pulled - {each.spec.place for each in self.hosted}:
            await calls.drop(consumers_of(place))
            self._pulled.remove(place)
        await self._rediscover(log)

    async def _look_at_calls(self, broker: Broker) -> None:
        """Host the earlier definitions that are called, and for a while those that were."""
        earlier, now = self.registry.earlier, self._monotonic()
        for each in self.earlier if earlier and await _waiting(broker) else ():
            if await _waiting(broker, each.spec.place):
                self._called[each.spec.place] = now
        self._called = {
            place: seen
            for place, seen in self._called.items()
            if place in earlier and now - seen < LINGER_S
        }

    # ------------------------------------------------------------------------------------- to judge

    async def _judge(self, log: JetStreamRegistry) -> None:
        """Say what came of what is tried, as soon as it is known."""
        pending = self.registry.pending
        if pending is None:
            return
        now = self._monotonic()
        if self._tried[0] != pending.n:
            self._tried = (pending.n, now)
        tried = [spec for spec in self.registry.tried if spec not in self.registry.offered]
        actors = placed(Pool(tuple(tried))).keys()
        looked = self._cluster.looked
        missing = dict.fromkeys(actors, "") if looked is None else looked.missing
        missing = {actor: why for actor, why in missing.items() if actor in actors}
        failed = "; ".join(f"{actor}: {why}" for actor, why in missing.items() if why)
        if failed or not missing:
            await self._settled(log, failed)
        elif now - self._tried[1] > TRY_S:
            await self._settled(log, f"not started within {TRY_S:g} s: {', '.join(missing)}")

    async def _settled(self, log: JetStreamRegistry, why: str) -> None:
        n = self._tried[0]
        await self._say(log, why)
        if why:
            logger.warning("change %d of the workers came to nothing: %s", n, why)
        else:
            logger.info("change %d of the workers: they work, and are offered", n)

    # ------------------------------------------------------------------------------- to ask servers

    async def _rediscover(self, log: JetStreamRegistry) -> None:
        """Register what servers offer by now, if actors have heard of a change.

        What a session has heard need not be for others: the server is asked afresh.
        """
        looked = self._cluster.looked
        if looked is None or self.registry.pending is not None:
            return
        heard = {actor: there for actor, there in looked.offers.items() if there}
        if all(self._heard.get(actor) == there for actor, there in heard.items()):
            return
        asked = [spec for spec in self.registry.offered if discovers(spec.adapter)]
        wanted, tables = await asyncio.to_thread(self._asked, asked)
        try:
            check_pool(wanted)
            said = rules.change(self.registry, wanted, at=now_ms(), by="discovery", tables=tables)
            if said is not None:
                logger.info("servers offer other tools: change %d of the workers", said.n)
                self._take(await log.append(said))
                self._wake.set()
        except Conflict:  # somebody else has changed them meanwhile: asked again after that
            return
        except (Usage, InvalidData, Busy) as error:
            logger.warning("what servers offer by now can't be registered: %s", error.message)
        self._heard |= heard

    def _asked(self, asked: Sequence[WorkerSpec]) -> tuple[Pool, dict[str, str]]:
        offers = Offers(self._redactor, self._secrets)
        offers.ask(asked)
        tables = {spec.name: self.registry.table_of(spec) for spec in self.registry.offered}
        return rediscovered(self.registry.pool, tables, offers)


async def _waiting(broker: Broker, place: str = "") -> bool:
    """Whether calls stand in a worker's queue, or in any, or are in hand."""
    body = {"subjects_filter": f"calls.{place}.>"} if place else None
    try:
        info = await broker.request(f"$JS.API.STREAM.INFO.{subjects.CALLS}", body)
    except (Refused, Unanswered):
        return False
    return bool(info["state"].get("subjects" if place else "messages"))


def folders_of(hosted: Iterable[Registered], specs: Iterable[WorkerSpec]) -> tuple[str, ...]:
    """Where the modules of some workers are imported from."""
    places = {spec.place for spec in specs}
    found = (each.folder for each in hosted if each.spec.place in places)
    return tuple(dict.fromkeys(folder for folder in found if folder))
