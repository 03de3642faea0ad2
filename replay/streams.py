"""The streams of a deployment: what each one keeps, and what it refuses. Made at start.

============  ==========  ==========================================================================
stream        retention   why so
============  ==========  ==========================================================================
``LOG-<k>``   limits      the truth: it refuses what is new rather than drop what is old
``TASKS``     work queue  one message per run; on disk, for it precedes the run's first commit
``CALLS``     work queue  one message per attempt; in memory, for a conductor can derive it again
``BLOBS``     limits      one message per chunk, and no second; only the archiver removes any
``HEADS``     limits      the scrubber's last head of each run
``WORKERS``   limits      the registry of workers: refuses what is new, as the logs of runs do
============  ==========  ==========================================================================
"""

from typing import Any, Final

from protocol import subjects
from protocol.errors import Conflict, Usage
from protocol.limits import MAX_MESSAGE_BYTES
from replay.broker import Broker, Refused, persist

MAX_CALLS: Final = 200_000
"""Attempts that may be queued at a time: about 200 MB of memory at 1 KB each; more waits in the
conductors."""

MAX_CALL_AGE_S: Final = 86_400
"""Seconds that a call may stand in the queue at all. Its own deadline is far shorter; this ends
what nobody sent."""

MAX_CHANGES: Final = 10_000
"""Changes of the registry of workers: one an hour for a year. Whoever begins a run reads them."""

MAX_TASKS: Final = 1_000_000
"""Runs that may be queued at a time."""

START_S: Final = 30.0
"""Seconds to wait for the streams at start: a cluster may still be electing its leaders."""

_EXISTS: Final = 10058


def definitions(shards: int, replicas: int) -> list[dict[str, Any]]:
    """The configuration of every stream, as the JetStream API takes it.

    Args:
        shards: How many logs there are, 1 to ``subjects.MAX_SHARDS``.
        replicas: Copies of each stream; 1, 3 or 5.
    """
    if not 1 <= shards <= subjects.MAX_SHARDS:
        raise Usage(
            f"{shards} shards are configured; 1 to {subjects.MAX_SHARDS} are possible",
            hint="set shards in podium.toml",
        )
    common = {"num_replicas": replicas, "max_msg_size": MAX_MESSAGE_BYTES, "discard": "new"}
    logs = [
        common
        | {
            "name": subjects.log_stream(k),
            "subjects": [f"log.{k}.*.c", f"log.{k}.*.i"],
            "retention": "limits",
            "storage": "file",
            "allow_direct": True,
            "allow_atomic": True,
            "deny_delete": True,
            "republish": {"src": f"log.{k}.*.*", "dest": "hint.{{wildcard(1)}}.{{wildcard(2)}}"},
        }
        for k in range(shards)
    ]
    queue = common | {
        "retention": "workqueue",
        "max_msgs_per_subject": 1,
        "discard_new_per_subject": True,
    }
    tasks = queue | {
        "name": subjects.TASKS,
        "subjects": [f"tasks.{p}.*" for p in subjects.PRIORITIES],
        "storage": "file",
        "max_msgs": MAX_TASKS,
        "allow_atomic": True,
    }
    calls = queue | {
        "name": subjects.CALLS,
        "subjects": [f"calls.*.{p}.*.*.*" for p in subjects.PRIORITIES],
        "storage": "memory",
        "max_msgs": MAX_CALLS,
        "max_age": MAX_CALL_AGE_S * 10**9,
        "allow_msg_ttl": True,
    }
    kept = common | {"retention": "limits", "storage": "file", "allow_direct": True}
    blobs = kept | {
        "name": subjects.BLOBS,
        "subjects": ["blobs.*.*"],
        "deny_delete": True,
        "max_msgs_per_subject": 1,
        "discard_new_per_subject": True,
    }
    heads = kept | {
        "name": subjects.HEADS,
        "subjects": ["heads.*"],
        "max_msgs_per_subject": 1,
        "discard": "old",
    }
    workers = kept | {
        "name": subjects.WORKERS,
        "subjects": [subjects.REGISTRY],
        "deny_delete": True,
        "max_msgs": MAX_CHANGES,
    }
    return [*logs, tasks, calls, blobs, heads, workers]


async def ensure_streams(broker: Broker, *, shards: int = 1, replicas: int = 1) -> None:
    """Make the streams that are not there, and bring those that are to today's configuration.

    Raises:
        Conflict: A stream is there that can't be brought to it.
        Unreachable: No answer.
    """
    for config in definitions(shards, replicas):
        await _ensure(broker, config)


async def _ensure(broker: Broker, config: dict[str, Any]) -> None:
    name = config["name"]

    async def ask(verb: str) -> Any:
        return await persist(
            lambda: broker.request(f"$JS.API.STREAM.{verb}.{name}", config),
            START_S,
            f"stream {name}",
        )

    try:
        await ask("CREATE")
    except Refused as error:
        if error.code != _EXISTS:
            raise _mismatch(name, error) from None
        try:
            await ask("UPDATE")
        except Refused as again:
            raise _mismatch(name, again) from None


def _mismatch(name: str, error: Refused) -> Conflict:
    return Conflict(
        f"stream {name} can't be configured as Podium needs it: {error.text} ({error.code})",
        hint=f"look at it with `nats stream info {name}`; is the account used by something else?",
    )
