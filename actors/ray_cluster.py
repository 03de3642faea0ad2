"""Ray's driver: a process that starts or joins a cluster and ends when it is lost.

    python -m actors.ray_cluster < one line of JSON

It answers with ``{"ready": true}`` on a line of its own. The end of its input ends it. It keeps
nothing: whoever started it starts another, on a fresh cluster, and the log has everything.
"""

import contextlib
import json
import logging
import os
import select
import socket
import sys
import threading
import time
from typing import Any, Final, NoReturn

import msgspec
import ray
from ray.exceptions import GetTimeoutError, RayError

from actors import descendants
from actors.logs import log_to
from actors.programs import Declared
from actors.ray_actors import NAMESPACE, SupervisorActor
from protocol.limits import MAX_DETAIL_CHARS
from protocol.secret_forms import EVERYTHING

logger = logging.getLogger("podium.ray")

READY_S: Final = 120.0
"""Seconds that all actors may take to answer once."""

LOOK_S: Final = 1.0
"""Seconds between two looks at the supervisor."""

MAX_SILENCES: Final = 6
"""Looks in a row without an answer of the supervisor, each of ``LOOK_S`` and more, after which the
cluster is lost. Of a cluster of our own, a process that ends says so at once."""

VITAL: Final = ("raylet", "gcs_server")
"""Processes of a cluster of our own that nothing brings back."""

ANSWER_S: Final = 3.0
"""Seconds that the supervisor may take to answer."""

STOP_S: Final = 30.0
"""Seconds that all actors together may take to hand back what they have."""

KNOCK_S: Final = 5.0
"""Seconds that the head of a running cluster may take to accept a connection."""

OBJECT_STORE_BYTES: Final = 80 * 1024 * 1024
"""Bytes of Ray's object store: close to its minimum, since messages travel over NATS."""

SEEK_S: Final = 0.2
"""Seconds between two looks for processes of Ray's own while it starts."""

SPARE_CPUS: Final = 4
"""Logical processors beyond one per actor, so that Ray starts enough processes ahead. Our actors
claim none."""

SUPERVISOR: Final = "podium-supervisor"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is started with."""

    declared: list[Declared]
    address: str = ""
    """Of a running cluster; empty starts one here."""
    deployment: str = ""
    """What tells this deployment from others on the same cluster."""
    log: str = ""
    """File of this machine to which the actors log; empty leaves that to Ray."""

    @property
    def namespace(self) -> str:
        """Ray's namespace of this deployment's actors."""
        return f"{NAMESPACE}-{self.deployment}" if self.deployment else NAMESPACE


def main() -> int:
    """Be the driver until the input ends (0) or the cluster is lost (1)."""
    asked = msgspec.json.decode(sys.stdin.buffer.readline(), type=Asked)
    log_to("", redaction=asked.declared[0].redact if asked.declared else EVERYTHING)
    descendants.adopt()
    leaving = threading.Event()
    if not asked.address:
        threading.Thread(target=_end_with_ray, args=(leaving,), daemon=True).start()
    try:
        _connect(asked)
    except (OSError, RuntimeError, RayError) as error:
        logger.exception("no cluster")
        _say({"error": f"{type(error).__name__}: {error}"[:MAX_DETAIL_CHARS]})
        return 1
    code = _serve(asked)
    leaving.set()
    if code and not asked.address:
        _abandon()
    with contextlib.suppress(Exception):
        ray.shutdown()
    descendants.kill()
    return code


def _serve(asked: Asked) -> int:
    supervisor = _supervisor(asked)
    if not _await_ready(supervisor):
        if asked.address:
            _stop(supervisor)
        return 1
    _say({"ready": True})
    return _watch(supervisor)


def _end_with_ray(leaving: threading.Event) -> None:
    """End at once when a process of Ray's own does: nothing brings it back."""
    known: dict[int, int] = {}
    ended: list[int] = []
    while not ended:
        known |= descendants.pidfds(VITAL, but=known)
        all_there = len(known) == len(VITAL)
        ended, _, _ = select.select(known.values(), [], [], None if all_there else SEEK_S)
    if not leaving.is_set():
        logger.error("a process of Ray's own ended: the cluster is lost")
        _abandon()


def _abandon() -> NoReturn:
    """End, and take everything along. Ray's own shutdown would wait for what is dead."""
    logging.shutdown()
    descendants.kill()
    os._exit(1)


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _connect(asked: Asked) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"namespace": asked.namespace, "log_to_driver": False}
    if asked.address:
        _knock(asked.address)
        ray.init(address=asked.address, **options)
        return
    ray.init(
        address="local",  # else Ray joins whatever cluster somebody has started on this machine
        include_dashboard=False,
        num_cpus=len(asked.declared) + SPARE_CPUS,
        num_gpus=0,
        object_store_memory=OBJECT_STORE_BYTES,
        **options,
    )


def _knock(address: str) -> None:
    """Fail at once where nobody listens; Ray itself would try for minutes. Raises OSError."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_S).close()


def _supervisor(asked: Asked) -> Any:
    env: dict[str, str] = {}
    if asked.address:
        names = ("PYTHONPATH", "OPENAI_BASE_URL", "OPENAI_API_KEY")
        env = {name: os.environ[name] for name in names if name in os.environ}
    remote = ray.remote(SupervisorActor).options(
        name=SUPERVISOR,
        namespace=asked.namespace,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_task_retries=0,
        num_cpus=0,
        max_concurrency=4,
    )
    encoded = msgspec.json.encode(asked.declared)
    supervisor: Any = remote.remote(encoded, asked.namespace, env, asked.log)
    if asked.address and not ray.get(supervisor.is_for.remote(encoded), timeout=READY_S):
        logger.warning("the cluster has this deployment's actors of an earlier start: ending them")
        _stop(supervisor)
        supervisor = remote.remote(encoded, asked.namespace, env, asked.log)
    return supervisor


def _await_ready(supervisor: Any) -> bool:
    deadline = time.monotonic() + READY_S
    missing: dict[str, str] = {}
    while time.monotonic() < deadline:
        if _input_ended(0):
            return False
        with contextlib.suppress(RayError, GetTimeoutError):
            missing = ray.get(supervisor.missing.remote(), timeout=ANSWER_S)
            if not missing:
                return True
            if failed := [f"{name}: {why}" for name, why in missing.items() if why]:
                _say({"error": "; ".join(failed)[:MAX_DETAIL_CHARS]})
                return False
        time.sleep(LOOK_S / 20)
    logger.error("actors that did not start within %g s: %s", READY_S, ", ".join(missing))
    return False


def _watch(supervisor: Any) -> int:
    silences = 0
    while not _input_ended(LOOK_S):
        try:
            ray.get(supervisor.missing.remote(), timeout=ANSWER_S)
            silences = 0
        except (RayError, GetTimeoutError) as error:
            silences += 1
            logger.warning("the supervisor does not answer (%d): %s", silences, error)
        if silences >= MAX_SILENCES or not _node_lives():
            logger.error("the cluster is lost")
            return 1
    _stop(supervisor)
    return 0


def _stop(supervisor: Any) -> None:
    with contextlib.suppress(RayError, GetTimeoutError):
        ray.get(supervisor.stop.remote(), timeout=STOP_S)
    with contextlib.suppress(RayError, ValueError):
        ray.kill(supervisor, no_restart=True)


def _node_lives() -> bool:
    """Whether Ray still counts any node among the living."""
    try:
        return any(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
    except Exception:  # the control store itself is gone
        return False


def _input_ended(within_s: float) -> bool:
    readable, _, _ = select.select([sys.stdin], [], [], within_s)
    return bool(readable) and not sys.stdin.buffer.read(1)


if __name__ == "__main__":
    sys.exit(main())
