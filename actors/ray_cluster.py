"""Ray's driver: a process that starts or joins a cluster and ends when it is lost.

    python -m actors.ray_cluster < one line of JSON (`Asked`)

It answers with ``{"ready": true}`` on a line of its own. Each further line of its input is another
list of actors that should be there (`Declared`), and whenever there is something else to tell of
them it prints ``{"looked": Looked}``. The end of its input ends it. It keeps nothing: whoever
started it starts another, on a fresh cluster, and the log has everything.
"""

import contextlib
import json
import logging
import os
import select
import shutil
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec
import ray
from ray.exceptions import GetTimeoutError, RayError

from actors import descendants
from actors.logs import log_to
from actors.ray_actors import SupervisorActor
from actors.ray_messages import Asked, Looked, fingerprint
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

READ_BYTES: Final = 65_536
"""Bytes of the input that are read at a time: what a pipe holds."""

LATEST: Final = "session_latest"
"""Ray's link to the folder of the cluster that was started last."""

SUPERVISOR: Final = "podium-supervisor"


def main() -> int:
    """Be the driver until the input ends (0) or the cluster is lost (1)."""
    lines = _Lines(sys.stdin.fileno())
    asked = msgspec.json.decode(lines.next(None) or b"", type=Asked)
    log_to("", redaction=asked.declared[0].redact if asked.declared else EVERYTHING)
    descendants.adopt()
    leaving = threading.Event()
    if not asked.address:
        threading.Thread(target=_end_with_ray, args=(leaving,), daemon=True).start()
    try:
        session = _connect(asked)
    except (OSError, RuntimeError, RayError) as error:
        logger.exception("no cluster")
        _say({"error": f"{type(error).__name__}: {error}"[:MAX_DETAIL_CHARS]})
        return 1
    code = _serve(asked, lines)
    leaving.set()
    if code and not asked.address:
        _abandon()
    with contextlib.suppress(Exception):
        ray.shutdown()
    descendants.kill()
    if not code and session is not None:
        _clear(session)
    return code


class _Lines:
    """The lines of an input that may say nothing for long."""

    def __init__(self, number: int) -> None:
        self._number, self._read, self.ended = number, b"", False

    def next(self, within_s: float | None) -> bytes | None:
        """The next line; None if none comes in time, or none ever will."""
        while b"\n" not in self._read and not self.ended:
            if not self.listen(within_s):
                return None
        line, newline, rest = self._read.partition(b"\n")
        if not newline:
            return None
        self._read = rest
        return line

    def listen(self, within_s: float | None) -> bool:
        """Whether something was said in time, or the end came. What it was is for `next`."""
        readable, _, _ = select.select([self._number], [], [], within_s)
        if readable:
            data = os.read(self._number, READ_BYTES)
            self._read += data
            self.ended = not data
        return bool(readable)


def _serve(asked: Asked, lines: _Lines) -> int:
    declared = msgspec.json.encode(asked.declared)
    supervisor = _supervisor(asked, declared)
    if not _await_ready(supervisor, declared, lines):
        if asked.address:
            _stop(supervisor)
        return 1
    _say({"ready": True})
    return _watch(supervisor, declared, lines)


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


def _connect(asked: Asked) -> Path | None:
    """Start or join a cluster. The folder that Ray keeps of one of our own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"namespace": asked.namespace, "log_to_driver": False}
    if asked.address:
        _knock(asked.address)
        ray.init(address=asked.address, **options)
        return None
    context: Any = ray.init(
        address="local",  # else Ray joins whatever cluster somebody has started on this machine
        include_dashboard=False,
        num_cpus=len(asked.declared) + SPARE_CPUS,
        num_gpus=0,
        object_store_memory=OBJECT_STORE_BYTES,
        **options,
    )
    folder = context.address_info["session_dir"]
    return Path(folder) if folder else None


def _clear(session: Path) -> None:
    """Remove what Ray has kept of a cluster that ended in order: nobody else ever does.

    Ray puts no other link in the place of one that leads nowhere.
    """
    shutil.rmtree(session, ignore_errors=True)
    latest = session.parent / LATEST
    with contextlib.suppress(OSError):
        if latest.is_symlink() and not latest.exists():
            latest.unlink()


def _knock(address: str) -> None:
    """Fail at once where nobody listens; Ray itself would try for minutes. Raises OSError."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_S).close()


def _supervisor(asked: Asked, declared: bytes) -> Any:
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
    supervisor: Any = remote.remote(declared, asked.namespace, env, asked.log)
    found = supervisor.look.remote(fingerprint(declared))
    if asked.address and ray.get(found, timeout=READY_S) is None:
        logger.warning("the cluster has this deployment's actors of an earlier start: ending them")
        _stop(supervisor)
        supervisor = remote.remote(declared, asked.namespace, env, asked.log)
    return supervisor


def _look(supervisor: Any, declared: bytes) -> Looked | None:
    """How the actors are. None if the supervisor was told others: it gets told these."""
    found = ray.get(supervisor.look.remote(fingerprint(declared)), timeout=ANSWER_S)
    if found is None:  # those that it was made with, if Ray has restarted it
        ray.get(supervisor.declare.remote(declared), timeout=STOP_S)
        return None
    return msgspec.json.decode(found, type=Looked)


def _await_ready(supervisor: Any, declared: bytes, lines: _Lines) -> bool:
    deadline = time.monotonic() + READY_S
    missing: dict[str, str] = {}
    while time.monotonic() < deadline:
        lines.listen(0)
        if lines.ended:
            return False
        with contextlib.suppress(RayError, GetTimeoutError):
            found = _look(supervisor, declared)
            missing = {} if found is None else found.missing
            if found is not None and not missing:
                return True
            if failed := [f"{name}: {why}" for name, why in missing.items() if why]:
                _say({"error": "; ".join(failed)[:MAX_DETAIL_CHARS]})
                return False
        time.sleep(LOOK_S / 20)
    logger.error("actors that did not start within %g s: %s", READY_S, ", ".join(missing))
    return False


def _watch(supervisor: Any, declared: bytes, lines: _Lines) -> int:
    silences, told = 0, None
    while True:
        busy = not silences and (told is None or "" in told.missing.values())
        line = lines.next(LOOK_S / 5 if busy else LOOK_S)
        if lines.ended:
            break
        if line is not None:
            declared, told = line, None
        try:
            found = _look(supervisor, declared)
            silences = 0
            if found is not None and found != told:
                told = found
                _say({"looked": msgspec.to_builtins(found)})
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


if __name__ == "__main__":
    sys.exit(main())
