"""The broker's configuration: who may say what, and how durable an acknowledgement is.

One account, ``PODIUM``, holds the streams; ``SYS`` is the system account, through which a server's
real settings are read. Every role has a token of its own. The rules that matter: only a conductor
publishes commits (``log.*.*.c``), and nobody else hears what is said to a stream or to a conductor,
since who hears a request could answer it before the broker does.
"""

import json
import os
import secrets
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

from actors.embedded.guard import CONFIG_FILE, write_atomically
from protocol.actions import Json
from protocol.errors import InvalidData
from protocol.limits import MAX_MESSAGE_BYTES, MAX_WORKERS
from replay.connection import inbox
from replay.durability import Durability

Role: TypeAlias = Literal["system", "conductor", "worker", "client", "tracer"]
"""Who connects. ``system`` reads the server's settings and sees no message of a run."""

ACCOUNT: Final = "PODIUM"
SYSTEM_ACCOUNT: Final = "SYS"
TOKENS_FILE: Final = "tokens.json"

TOKEN_BYTES: Final = 32
"""Bytes of randomness in a token: 256 bits cannot be guessed."""

LOG_FILE_BYTES: Final = 10_000_000
"""Bytes of the server's own log before it is rotated: each refused message is a line."""

LOG_FILES: Final = 3
"""Rotated log files kept."""

READ: Final = (
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.INFO.>",
    "$JS.API.STREAM.MSG.GET.>",
    "$JS.API.DIRECT.GET.>",
)
"""What anybody needs to read a run."""

WORKER_PUBLISHES: Final = (
    "log.*.*.i",
    "blobs.>",
    "live.>",
    *READ,
    "$JS.API.CONSUMER.INFO.CALLS.>",
    "$JS.API.CONSUMER.CREATE.CALLS.>",
    "$JS.API.CONSUMER.DURABLE.CREATE.CALLS.>",
    "$JS.API.CONSUMER.MSG.NEXT.CALLS.>",
    "$JS.ACK.CALLS.>",
    "$JS.ACK.*.*.CALLS.>",
)
"""What a worker publishes: reports, blobs, progress; and what it takes its calls with."""

CLIENT_PUBLISHES: Final = (
    "tasks.>",
    "stats",
    "log.*.*.i",
    "blobs.>",
    *READ,
    "$JS.API.CONSUMER.NAMES.>",
    "$JS.API.CONSUMER.LIST.>",
    "$JS.API.CONSUMER.INFO.>",
)
"""What a client publishes: tasks, signals and labels, and the question how all are."""

WORKER_HEARS: Final = (f"{inbox('worker')}.>", "withdraw.>", "stats")
"""What a worker hears: answers and calls, what to stop, and the question how it is."""

CLIENT_HEARS: Final = (f"{inbox('client')}.>", "hint.>", "live.>")
"""What a client hears: answers, what was stored, and progress."""

TRACER_HEARS: Final = (f"{inbox('tracer')}.>",)
"""What the exporter of traces hears: answers. It only reads."""

NOBODY_PUBLISHES: Final = ("hint.>",)
"""What only the server itself says: its republication of what it has stored."""

REPLIES: Final = {"max": MAX_WORKERS, "expires": "2m"}
"""A worker's right to answer ``stats``: to each that it hears, within two minutes, as often as
there may be workers in its process. The right to publish to a client's inbox instead would let it
forge the broker's answers there."""


class Tokens(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A folder's server name and the token of each role. Made once, kept as long as the data."""

    name: str
    system: str
    conductor: str
    worker: str
    client: str
    tracer: str = ""
    """Empty only in a file that an earlier version wrote, until it is loaded."""

    def of(self, role: Role) -> str:
        """The token of ``role``."""
        match role:
            case "system":
                return self.system
            case "conductor":
                return self.conductor
            case "worker":
                return self.worker
            case "client":
                return self.client
            case "tracer":
                return self.tracer


class Member(msgspec.Struct, frozen=True):
    """One server's place in a cluster on loopback."""

    port: int
    """Where this server listens for the others."""
    routes: tuple[int, ...]
    """Where the others listen."""


def new_tokens() -> Tokens:
    """Fresh random tokens under a fresh server name."""
    made = (secrets.token_urlsafe(TOKEN_BYTES) for _ in range(5))
    return Tokens(f"podium-{secrets.token_hex(4)}", *made)


def load_tokens(folder: Path) -> Tokens:
    """The folder's tokens; made and stored at the first call.

    Raises:
        InvalidData: the file is not what was written.
    """
    path = folder / TOKENS_FILE
    try:
        tokens = msgspec.json.decode(path.read_bytes(), type=Tokens)
        if tokens.tracer:
            return tokens
        tokens = msgspec.structs.replace(tokens, tracer=new_tokens().tracer)
    except FileNotFoundError:
        tokens = new_tokens()
    except msgspec.DecodeError as error:
        raise InvalidData(
            f"{path} does not hold the broker's tokens: {error}",
            hint=f"Stop what uses {folder}, then delete {path}; new tokens are made, data is kept.",
        ) from error
    write_atomically(os.fspath(path), msgspec.json.encode(tokens), synced=True)
    return tokens


def _permissions(role: Role) -> dict[str, Json]:
    """What ``role`` may say and hear. A conductor hears everything: it could write it, too."""
    match role:
        case "system":
            return {}
        case "conductor":
            return {"publish": {"deny": list(NOBODY_PUBLISHES)}}
        case "worker":
            return {
                "publish": {"allow": list(WORKER_PUBLISHES)},
                "subscribe": {"allow": list(WORKER_HEARS)},
                "allow_responses": REPLIES,
            }
        case "client":
            return {
                "publish": {"allow": list(CLIENT_PUBLISHES)},
                "subscribe": {"allow": list(CLIENT_HEARS)},
            }
        case "tracer":
            return {
                "publish": {"allow": list(READ)},
                "subscribe": {"allow": list(TRACER_HEARS)},
            }


def _user(role: Role, tokens: Tokens) -> dict[str, Json]:
    user: dict[str, Json] = {"user": role, "password": tokens.of(role)}
    if permissions := _permissions(role):
        user["permissions"] = permissions
    return user


def render(
    folder: Path,
    tokens: Tokens,
    durability: Durability,
    *,
    port: int = -1,
    name: str = "",
    member: Member | None = None,
    monitor: bool = False,
) -> str:
    """The text of the configuration (JSON, which nats-server reads as its own format).

    Args:
        folder: where data, log and port files go.
        tokens: who may connect.
        durability: ``process`` leaves the broker's interval of syncs; the others always sync.
        port: the client port on loopback; -1 for any free one.
        name: the server's name, if not the one of the tokens.
        member: its place in a cluster; None for a server of its own.
        monitor: whether to serve the HTTP monitoring pages on any free port of loopback.
    """
    store: dict[str, Json] = {"store_dir": os.fspath(folder / "store")}
    if durability != "process":
        store["sync_interval"] = "always"
    config: dict[str, Json] = {
        "server_name": name or tokens.name,
        "listen": f"127.0.0.1:{port}",
        "max_payload": MAX_MESSAGE_BYTES,
        "ports_file_dir": os.fspath(folder / "ports"),
        "log_file": os.fspath(folder / "nats.log"),
        "logfile_size_limit": LOG_FILE_BYTES,
        "logfile_max_num": LOG_FILES,
        "jetstream": store,
        "system_account": SYSTEM_ACCOUNT,
        "accounts": {
            SYSTEM_ACCOUNT: {"users": [_user("system", tokens)]},
            ACCOUNT: {
                "jetstream": "enabled",
                "users": [
                    _user("conductor", tokens),
                    _user("worker", tokens),
                    _user("client", tokens),
                    _user("tracer", tokens),
                ],
            },
        },
    }
    if monitor:
        config["http"] = "127.0.0.1:-1"
    if member is not None:
        config["cluster"] = {
            "name": tokens.name,
            "listen": f"127.0.0.1:{member.port}",
            "routes": [f"nats://127.0.0.1:{other}" for other in member.routes],
        }
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"


def write_config(folder: Path, text: str) -> None:
    """Put the configuration where the guard looks. It holds the tokens: for this user only."""
    write_atomically(os.fspath(folder / CONFIG_FILE), text.encode())
