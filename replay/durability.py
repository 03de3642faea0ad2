"""What an acknowledgement of the broker is worth: asked for, read from the servers, compared.

JetStream acknowledges before it has synced, unless it is told otherwise; a label in our own
configuration proves nothing. So each server of the deployment is asked, through its system
account, for what it really does, and a weaker one than asked for is refused with the line of
configuration that mends it.

::

    settings = await read(broker, system)      # what is; system is None without credentials
    check(settings, "power")                   # what falls short of it: pure, a list
    require(settings, "power")                 # raises if anything does; returns the label to show
"""

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypeVar, get_args

import msgspec

from protocol import subjects
from protocol.errors import Denied, InvalidData, Unreachable, Usage

if TYPE_CHECKING:
    from nats.aio.client import Client

Durability: TypeAlias = Literal["process", "power", "site"]
"""What acknowledged data survive: the crash of any process; a power cut; the loss of a machine.
Each includes the ones before."""

LEVELS: Final[tuple[Durability, ...]] = get_args(Durability)
"""From the weakest to the strongest."""

SITE_REPLICAS: Final = 3
"""Copies of each stream in ``site``: the fewest of which one may be lost with a majority left."""

OLDEST_VERSION: Final = (2, 14, 0)
"""The oldest nats-server with all that the log's rules rest on (sequence conditions inside atomic
batches, per-message TTL, work queues that refuse a second message)."""

ANSWER_LIMIT_S: Final = 2.0
"""Seconds to wait for each server's settings; on one network they come within milliseconds."""

REPLACED: Final = frozenset({subjects.HEADS})
"""Streams whose newer messages stand in for older ones, so that dropping the old is their way."""

DERIVED: Final = frozenset({subjects.CALLS})
"""Streams that a conductor makes again from the log: what they hold may be lost."""

_OURS: Final = re.compile(
    rf"LOG-\d+|{subjects.TASKS}|{subjects.CALLS}|{subjects.BLOBS}|{subjects.HEADS}"
    rf"|{subjects.WORKERS}"
)
"""Streams of Podium's; others of the same account are not our business."""

_SETTINGS_SUBJECT: Final = "$SYS.REQ.SERVER.PING.JSZ"
_STREAMS_SUBJECT: Final = "$JS.API.STREAM.LIST"
_NANOSECONDS: Final = 1_000_000_000


class ServerSettings(msgspec.Struct, frozen=True):
    """What one server says of itself."""

    name: str
    version: str
    sync_always: bool
    """Whether it syncs before it acknowledges."""
    sync_interval_s: float
    """Seconds between its syncs otherwise."""
    store_dir: str = ""


class StreamSettings(msgspec.Struct, frozen=True):
    """What the broker says of one stream."""

    name: str
    num_replicas: int = 1
    storage: str = "file"
    discard: str = "old"
    max_age: int = 0
    """Nanoseconds after which a message is dropped; 0 for never."""
    persist_mode: str = ""
    """``async`` acknowledges before writing."""


class Settings(msgspec.Struct, frozen=True):
    """What a deployment really does."""

    servers: tuple[ServerSettings, ...] = ()
    """Those that answered, by name."""
    streams: tuple[StreamSettings, ...] = ()
    expected: int = 1
    """Servers that should have answered: the size of the cluster."""
    verified: bool = True
    """False without credentials of the system account: then ``servers`` is empty."""


class Weakness(msgspec.Struct, frozen=True):
    """One way in which a deployment falls short of what is asked of it."""

    where: str
    """The server or the stream."""
    found: str
    needed: str
    mend: str
    """The line of configuration, or the command, that mends it."""

    def __str__(self) -> str:
        return f"{self.where}: {self.found}; needed: {self.needed}; mend it with: {self.mend}"


def at_least(given: Durability, wanted: Durability) -> bool:
    """Whether ``given`` is as strong as ``wanted``, or stronger."""
    return LEVELS.index(given) >= LEVELS.index(wanted)


def check(settings: Settings, wanted: Durability) -> list[Weakness]:
    """All that falls short of ``wanted``; empty if nothing does. Pure."""
    found = _servers_weaknesses(settings, wanted) if settings.verified else []
    if not settings.verified and wanted != "process":
        found.append(_UNVERIFIED)
    for stream in settings.streams:
        if _OURS.fullmatch(stream.name):
            found.extend(_stream_weaknesses(stream, wanted))
    return found


def _servers_weaknesses(settings: Settings, wanted: Durability) -> list[Weakness]:
    found: list[Weakness] = []
    if len(settings.servers) < settings.expected:
        found.append(
            Weakness(
                "the cluster",
                f"{len(settings.servers)} of {settings.expected} servers say what they do",
                "all of them",
                "start the missing servers, or take them out: nats server cluster peer-remove NAME",
            )
        )
    for server in settings.servers:
        found.extend(_server_weaknesses(server, wanted))
    if wanted == "site" and settings.expected < SITE_REPLICAS:
        found.append(
            Weakness(
                "the cluster",
                f"{settings.expected} server{'s' if settings.expected > 1 else ''}",
                f"{SITE_REPLICAS}, on machines of their own",
                "cluster { name: podium, listen: HOST:6222, routes: [nats://OTHER:6222, ...] }",
            )
        )
    return found


_UNVERIFIED: Final = Weakness(
    "the broker",
    "its real settings can't be read without credentials of its system account",
    "a user of the system account",
    "system_account: SYS, accounts { SYS { users: [...] } }, and name that user's credentials file:"
    " `system_credentials` under [nats] in podium.toml",
)


def _server_weaknesses(server: ServerSettings, wanted: Durability) -> list[Weakness]:
    where = f"server {server.name}"
    found = []
    if _version(server.version) < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        found.append(
            Weakness(
                where,
                f"nats-server {server.version}",
                f"{oldest} or newer",
                f"install nats-server {oldest} or newer on {server.name}",
            )
        )
    if wanted != "process" and not server.sync_always:
        found.append(
            Weakness(
                where,
                f"acknowledges first and syncs every {server.sync_interval_s:g} s",
                "a sync before each acknowledgement",
                "jetstream { sync_interval: always }",
            )
        )
    return found


def _stream_weaknesses(stream: StreamSettings, wanted: Durability) -> list[Weakness]:
    where, edit = f"stream {stream.name}", f"nats stream edit {stream.name}"
    found = [] if stream.name in DERIVED else _ways_to_lose(stream, where, edit)
    if wanted == "site" and stream.num_replicas < SITE_REPLICAS:
        found.append(
            Weakness(
                where,
                f"{stream.num_replicas} replica{'s' if stream.num_replicas > 1 else ''}",
                f"{SITE_REPLICAS} replicas",
                f"{edit} --replicas={SITE_REPLICAS}",
            )
        )
    return found


def _ways_to_lose(stream: StreamSettings, where: str, edit: str) -> list[Weakness]:
    """How a stream may lose messages that it has acknowledged, at any durability."""
    anew = f"nats stream backup {stream.name} DIR, delete it, and restore it with"
    found = []
    if stream.storage != "file":
        found.append(
            Weakness(where, f"storage {stream.storage}", "storage file", f"{anew} storage: file")
        )
    if stream.persist_mode == "async":
        found.append(
            Weakness(
                where,
                "persist_mode async: acknowledged before it is written",
                "persist_mode default",
                f"{anew} persist_mode: default",
            )
        )
    if stream.discard != "new" and stream.name not in REPLACED:
        found.append(
            Weakness(
                where,
                f"discard {stream.discard}: a full stream drops what it has",
                "discard new: a full stream refuses more",
                f"{edit} --discard=new",
            )
        )
    if stream.max_age:
        age = stream.max_age / _NANOSECONDS
        found.append(Weakness(where, f"max_age {age:g} s", "max_age 0", f"{edit} --max-age=0"))
    return found


def _version(text: str) -> tuple[int, ...]:
    """The numbers at the start of a version; ``2.15.1-RC.1`` counts as 2.15.1."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else (0, 0, 0)


def given(settings: Settings) -> Durability | None:
    """The strongest level that the deployment gives; None if not even ``process``, or unknown."""
    if not settings.verified:
        return None
    return next((level for level in reversed(LEVELS) if not check(settings, level)), None)


def require(settings: Settings, wanted: Durability) -> str:
    """The label to show, such as ``power (asked for process)``.

    Raises:
        Denied: the settings can't be read, and ``wanted`` is more than ``process``.
        Usage: the deployment is weaker than ``wanted``; the message has each weakness, the hint
            the lines that mend them.
    """
    weaknesses = check(settings, wanted)
    if weaknesses:
        error = Denied if _UNVERIFIED in weaknesses else Usage
        found = "\n".join(
            f"  {weak.where}: {weak.found}; needed: {weak.needed}" for weak in weaknesses
        )
        mends = list(dict.fromkeys(weak.mend for weak in weaknesses))
        raise error(
            f"Durability '{wanted}' is asked for, and the broker does not show it:\n{found}",
            hint="Mend it with:\n"
            + "\n".join(f"  {mend}" for mend in mends)
            + "\nor ask for a weaker durability.",
        )
    if not settings.verified:
        return f"{wanted} (unverified: no credentials of the broker's system account)"
    level = given(settings)
    return wanted if level in {wanted, None} else f"{level} (asked for {wanted})"


class _Meta(msgspec.Struct):
    cluster_size: int = 0


class _StoreConfig(msgspec.Struct):
    store_dir: str = ""
    sync_interval: int = 0
    sync_always: bool = False


class _Data(msgspec.Struct):
    disabled: bool = False
    config: _StoreConfig | None = None
    meta_cluster: _Meta | None = None


class _Server(msgspec.Struct):
    name: str
    ver: str


class _Answer(msgspec.Struct):
    server: _Server
    data: _Data = msgspec.field(default_factory=_Data)


class _Listed(msgspec.Struct):
    config: StreamSettings


class _StreamList(msgspec.Struct):
    total: int = 0
    streams: list[_Listed] | None = None
    error: dict[str, str | int] | None = None


async def read(
    broker: "Client", system: "Client | None", *, limit_s: float = ANSWER_LIMIT_S
) -> Settings:
    """What the deployment really does.

    Args:
        broker: a connection of the account that holds the streams.
        system: one of the system account; None where no credentials are given.
        limit_s: seconds to wait for the servers.

    Raises:
        Unreachable: no server with JetStream answers.
        InvalidData: an answer can't be read.
    """
    streams = await read_streams(broker, limit_s=limit_s)
    if system is None:
        return Settings(streams=streams, verified=False)
    servers, expected = await read_servers(system, limit_s=limit_s)
    return Settings(servers, streams, expected)


async def read_servers(
    system: "Client", *, limit_s: float = ANSWER_LIMIT_S
) -> tuple[tuple[ServerSettings, ...], int]:
    """Each server's settings, and how many servers there should be.

    Waits until as many have answered as the largest cluster that one of them knows, at most
    ``limit_s`` seconds.
    """
    inbox = system.new_inbox()
    answers = await system.subscribe(inbox)
    found: dict[str, ServerSettings] = {}
    expected = 1
    deadline = time.monotonic() + limit_s
    try:
        await system.publish(_SETTINGS_SUBJECT, b'{"config":true}', reply=inbox)
        while len(found) < expected:
            message = await answers.next_msg(timeout=max(deadline - time.monotonic(), 0.001))
            if message.headers and message.headers.get("Status") == "503":
                break
            answer = _decode(message.data, _Answer)
            if answer.data.disabled or answer.data.config is None:
                continue  # A server without JetStream stores nothing.
            store = answer.data.config
            if answer.data.meta_cluster is not None:
                expected = max(expected, answer.data.meta_cluster.cluster_size)
            found[answer.server.name] = ServerSettings(
                name=answer.server.name,
                version=answer.server.ver,
                sync_always=store.sync_always,
                sync_interval_s=store.sync_interval / _NANOSECONDS,
                store_dir=store.store_dir,
            )
    except TimeoutError:
        pass  # The count says that some are missing, and `check` names it.
    finally:
        await answers.unsubscribe()
    if not found:
        raise Unreachable(
            f"No server with JetStream said what it does within {limit_s:g} s.",
            hint="See that the servers have `jetstream { }`, and that the credentials given are"
            " those of a user of the account that `system_account` names.",
        )
    return tuple(found[name] for name in sorted(found)), expected


async def read_streams(
    broker: "Client", *, limit_s: float = ANSWER_LIMIT_S
) -> tuple[StreamSettings, ...]:
    """The settings of every stream of the account, by name."""
    from nats.errors import Error as NatsError

    found: list[StreamSettings] = []
    while True:
        asked = msgspec.json.encode({"offset": len(found)})
        try:
            message = await broker.request(_STREAMS_SUBJECT, asked, timeout=limit_s)
        except (TimeoutError, NatsError) as error:
            raise Unreachable(
                f"The broker does not list its streams: {type(error).__name__} {error}".rstrip(),
                hint="See that JetStream is enabled for the account of the credentials given.",
            ) from error
        listed = _decode(message.data, _StreamList)
        page = [item.config for item in listed.streams or ()]
        if listed.error is not None:
            raise Unreachable(
                f"The broker does not list its streams: {listed.error.get('description', '')}",
                hint="See that JetStream is enabled for the account of the credentials given.",
            )
        found.extend(page)
        if not page or len(found) >= listed.total:
            return tuple(sorted(found, key=lambda stream: stream.name))


def describe(settings: Settings) -> Sequence[str]:
    """One line for each server, for the person who looks."""
    if not settings.verified:
        return [_UNVERIFIED.found]
    return [
        f"{server.name} (nats-server {server.version}): "
        + (
            "syncs before each acknowledgement"
            if server.sync_always
            else f"syncs every {server.sync_interval_s:g} s"
        )
        for server in settings.servers
    ]


_T = TypeVar("_T")


def _decode(data: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise InvalidData(
            f"The broker's answer can't be read: {error}",
            hint="Is it a nats-server of the versions that Podium knows? `podium doctor` shows it.",
        ) from error
