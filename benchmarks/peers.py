"""Podium beside its peers: the same work on LangGraph and on DBOS, in turns.

The work is 3 rounds of 4 parallel calls that return at once, with 100 bytes of arguments and 300
bytes of value each. The peers live in a virtual environment of their own, made on first use;
Postgres runs with the settings it ships with. Which settings each peer has, and why, stands in
``docs/benchmarks.md`` and in `peers_env`.
"""

import contextlib
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Final, NamedTuple

from benchmarks import contender, report
from benchmarks.child import ROOT, Child
from benchmarks.contender import LOADED, Durability, Entry, Figures, Key, Series
from benchmarks.errors import BenchmarkError
from benchmarks.postgres import binaries, postgres

HOME: Final = ROOT / ".venv-peers"
"""The peers' virtual environment."""

REQUIREMENTS: Final = pathlib.Path(__file__).resolve().parent / "peers_env" / "requirements.txt"

DISTRIBUTIONS: Final = ("langgraph", "langgraph-checkpoint-postgres", "dbos", "psycopg")
"""Whose versions are part of the conditions."""

PODIUM: Final = "podium"


class Peer(NamedTuple):
    """One way to do the work with somebody else's library."""

    name: str
    arguments: tuple[str, ...]
    """Module of `peers_env` and its arguments; the database's URL is added where there is one."""
    best_at: int
    """Runs in flight at which it was fastest; measured there too, beside 200."""
    database: bool = True


PEERS: Final = (
    Peer("langgraph-postgres", ("langgraph_peer", "postgres", "1"), best_at=20),
    Peer("langgraph-postgres-20-savers", ("langgraph_peer", "postgres", "20"), best_at=20),
    Peer("langgraph-memory", ("langgraph_peer", "memory"), best_at=10, database=False),
    Peer("dbos", ("dbos_peer",), best_at=20),
)

TARGETS: Final[dict[tuple[str, Durability], report.Target]] = {
    ("langgraph-postgres", "process"): report.at_least(10),
    ("langgraph-postgres", "power"): report.at_least(4),
    ("langgraph-memory", "process"): report.at_least(2),
}
"""What is promised of Podium's throughput over a peer's, both with 200 runs in flight."""


class PeerContender:
    """A peer as a contender, with a Postgres of its own. Its durability is as it ships."""

    def __init__(self, peer: Peer, python: pathlib.Path, data: pathlib.Path) -> None:
        self.name = peer.name
        self._peer = peer
        self._python = python
        self._data = data
        self._child: Child | None = None
        self._owned = contextlib.ExitStack()

    def start(self, durability: Durability) -> None:
        """Start Postgres where it needs one, then the peer."""
        folder = pathlib.Path(tempfile.mkdtemp(prefix="peer-", dir=self._data))
        # Postgres runs as another user when root started this, and has to pass.
        folder.chmod(0o755)
        module, *arguments = self._peer.arguments
        command = [self._python, "-m", f"benchmarks.peers_env.{module}", *arguments]
        if self._peer.database:
            command.append(self._owned.enter_context(postgres(folder / "pg")).url)
        self._child = Child(self.name, [str(part) for part in command], folder / "peer.log")
        self._owned.callback(self._child.close)

    def measure(self, concurrency: int, runs: int) -> Figures:
        """Do ``runs`` runs, ``concurrency`` at a time."""
        if self._child is None:
            raise BenchmarkError(f"{self.name} was not started: call start() before measure()")
        answer = self._child.ask({"concurrency": concurrency, "runs": runs})
        return Figures(answer["runs_per_s"], answer["p50_ms"])

    def stop(self) -> None:
        """Stop the peer, then Postgres."""
        self._owned.close()
        self._child = None


def environment(
    home: pathlib.Path = HOME, requirements: pathlib.Path = REQUIREMENTS
) -> pathlib.Path:
    """The Python of a virtual environment of peers, made or renewed where its requirements ask.

    Raises BenchmarkError when the installer fails.
    """
    python, stamp = home / "bin" / "python", home / ".requirements"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted and python.exists():
        return python
    contender.progress(f"installing the peers into {home}")
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--requirement", requirements], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BenchmarkError(
            f"the peers could not be installed into {home}: {done.stderr.strip()[-1500:]}\n"
            f"Check the network, or remove {home} and try again."
        )
    stamp.write_text(wanted)
    return python


def versions(python: pathlib.Path, distributions: Sequence[str] = DISTRIBUTIONS) -> dict[str, str]:
    """The versions of distributions, as installed there."""
    program = (
        "import importlib.metadata, json, sys;"
        "print(json.dumps({n: importlib.metadata.version(n) for n in sys.argv[1:]}))"
    )
    command = [str(python), "-c", program, *distributions]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(shown.stdout)
    return found


def compared(
    series: Series, peers: Sequence[Peer], ours: Sequence[Durability]
) -> list[report.Line]:
    """Everyone's own figures, then Podium over each peer: at 200, and where the peer is best."""
    labels = [peer.name for peer in peers] + [f"{PODIUM} {durability}" for durability in ours]
    lines = [line for label in labels for line in report.plain(series, label)]
    for durability in ours:
        above: Key = (f"{PODIUM} {durability}", LOADED)
        for peer in peers:
            promise = TARGETS.get((peer.name, durability))
            loaded: Key = (peer.name, LOADED)
            lines.append(report.ratio(series, above, loaded, "runs_per_s", promise))
            if (best := series.best(peer.name)) != loaded:
                lines.append(report.ratio(series, above, best, "runs_per_s", None))
    return lines


def _chosen(options: report.Options) -> tuple[list[Peer], tuple[Durability, ...]]:
    """The peers to measure, and Podium's durabilities. Raises BenchmarkError for another name."""
    known = [peer.name for peer in PEERS] + [PODIUM]
    if unknown := sorted(set(options.only) - set(known)):
        raise BenchmarkError(f"no contender {', '.join(unknown)}; there are {', '.join(known)}.")
    peers = [peer for peer in PEERS if options.wants(peer.name)]
    return peers, options.durability if options.wants(PODIUM) else ()


def benchmark(options: report.Options, data: pathlib.Path) -> report.Report:
    """The peers and Podium in turns."""
    peers, ours = _chosen(options)
    found: dict[str, str] = {}
    entries: list[Entry] = []
    for durability in ours:
        podium = contender.from_podium("PodiumContender", data)
        entries.append(Entry(podium, durability, (LOADED,), f"{PODIUM} {durability}"))
    if any(peer.database for peer in peers):
        found["postgres"] = binaries().version
    if peers:
        python = environment()
        found |= versions(python)
        for peer in peers:
            each = PeerContender(peer, python, data)
            entries.append(Entry(each, "power", (peer.best_at, LOADED), peer.name))
    series = contender.alternate(
        entries, options.repeats, options.seconds, contender.progress, options.runs
    )
    conditions = report.conditions(options, data, series, found)
    return report.Report("peers", conditions, compared(series, peers, ours))
