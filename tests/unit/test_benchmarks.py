"""The benchmarks' own logic: turns, ratios, targets, reports, the talk with child processes."""

import asyncio
import json
import os
import pathlib
import subprocess
import sys

import msgspec
import psutil
import pytest

from benchmarks import (
    contender,
    floor,
    inflight,
    peers,
    postgres,
    report,
    sampling,
    serving,
    throughput,
    tracing,
)
from benchmarks.__main__ import main
from benchmarks.child import ROOT, Child
from benchmarks.contender import ALONE, LOADED, Durability, Entry, Figures, Series
from benchmarks.errors import BenchmarkError

OPTIONS = report.Options(command="python -m benchmarks floor", repeats=2)


class Paced:
    """A contender of a known speed that writes down what happens to it."""

    def __init__(self, name: str, runs_per_s: float, diary: list[str]) -> None:
        self.name = name
        self._rate = runs_per_s
        self._diary = diary
        self._up = False

    def start(self, durability: Durability) -> None:
        self._diary.append(f"start {self.name} {durability}")
        if self._rate == 0:
            raise BenchmarkError(f"{self.name} does not start")
        self._up = True

    def measure(self, concurrency: int, runs: int) -> Figures:
        assert self._up, "measured while it was down"
        self._diary.append(f"{self.name} {concurrency} {runs}")
        return Figures(self._rate, concurrency / self._rate * 1e3)

    def stop(self) -> None:
        self._up = False
        self._diary.append(f"stop {self.name}")


def quiet(_: str) -> None:
    """Swallow progress."""


def series(**rates: float) -> Series:
    """One repeat, in which the latency alone is a second over the rate."""
    figures = {}
    for name, rate in rates.items():
        label = name.replace("_", " ")
        figures[label, LOADED] = [Figures(rate, 1e3)]
        figures[label, ALONE] = [Figures(rate / 10, 1e3 / rate)]
    return Series(figures, dict.fromkeys(figures, 100))


def test_contenders_alternate_and_only_one_is_up_at_a_time() -> None:
    diary: list[str] = []
    entries = [
        Entry(Paced("a", 100, diary), "process", (1,), "a"),
        Entry(Paced("b", 50, diary), "power", (1,), "b"),
    ]
    contender.alternate(entries, repeats=2, seconds=1, tell=quiet, runs=40)
    order = [line.split()[1] for line in diary if line.startswith(("start", "stop"))]
    assert order == ["a", "a", "b", "b", "b", "b", "a", "a"]
    assert "start b power" in diary


def test_a_measurement_fills_its_seconds_and_keeps_its_size() -> None:
    diary: list[str] = []
    taken = contender.alternate(
        [Entry(Paced("a", 1000, diary), "process", (1, 200), "a")], 3, seconds=2, tell=quiet
    )
    assert taken.runs == {("a", 1): 2000, ("a", 200): 2000}
    assert diary.count("a 200 2000") == 3


def test_rounds_go_forth_and_back_with_all_up() -> None:
    diary: list[str] = []
    off, on = Paced("a", 1000, diary), Paced("b", 950, diary)
    entries = [Entry(off, "process", (200,), "off"), Entry(on, "process", (200,), "on")]
    taken = Series({}, {})
    for _ in range(2):
        with contender.up(off, "process"), contender.up(on, "process"):
            contender.in_rounds(entries, 200, 3, 6, quiet, taken)
    assert diary[:2] == ["start a process", "start b process"]
    rounds = [line.split() for line in diary if not line.startswith(("start", "stop"))]
    assert [name for name, _, runs in rounds if runs != "200"] == 2 * ["a", "b", "b", "a", "a", "b"]
    assert taken.runs == {("off", 200): 2000, ("on", 200): 1900}
    assert taken.ratios(("on", 200), ("off", 200), "runs_per_s") == pytest.approx(6 * [0.95])


def test_tracing_promises_throughput_and_work() -> None:
    worked = tracing.Worked(1000, 1, server_ms=0.5, worker_ms=0.5, conductor_ms=1.0)
    loaded = tracing.Worked(900, 1, 0.5, 0.6, 1.2, exporter_ms=0.1, spans_per_s=700)
    taken = Series(
        {
            ("off", LOADED): [worked],
            ("on", LOADED): [loaded],
            ("off", ALONE): [worked],
            ("on", ALONE): [loaded],
        },
        {},
    )
    lines = {line.name: line.shown() for line in tracing.compared(taken, "off", "on")}
    speed, work = lines["on / off, throughput at 200"], lines["on / off, CPU of a run at 200"]
    assert (speed["value"], speed["target"], speed["holds"]) == (0.9, ">= 0.95", False)
    assert (work["value"], work["target"], work["holds"]) == (1.15, "<= 1.05", False)
    assert lines["on / off, CPU of a run, the worker's at 200"]["value"] == 1.2
    assert lines["on, exported beside"]["value"] == 700


def test_a_slow_contender_still_fills_its_places_twice() -> None:
    entries = [Entry(Paced("a", 3, []), "process", (200,), "a")]
    assert contender.alternate(entries, 1, 1, quiet).runs == {("a", 200): 400}


def test_a_contender_that_does_not_start_is_stopped() -> None:
    diary: list[str] = []
    with pytest.raises(BenchmarkError, match="broken does not start"):
        contender.alternate([Entry(Paced("broken", 0, diary), "process", (1,), "x")], 1, 1, quiet)
    assert diary == ["start broken process", "stop broken"]


def test_a_ratio_is_taken_within_a_repeat_before_the_median() -> None:
    taken = Series(
        {
            ("podium process", LOADED): [Figures(rate, 1) for rate in (50, 10, 60)],
            ("floor process", LOADED): [Figures(rate, 1) for rate in (100, 40, 100)],
        },
        {},
    )
    line = report.ratio(
        taken, ("podium process", 200), ("floor process", 200), "runs_per_s", report.at_least(0.5)
    )
    shown = line.shown()
    assert shown["value"] == 0.5
    assert shown["range"] == [0.25, 0.6]
    assert (shown["target"], shown["holds"]) == (">= 0.5", True)


@pytest.mark.parametrize(
    ("target", "value", "holds"),
    [
        (report.at_least(2), 2.0, True),
        (report.at_least(2), 1.99, False),
        (report.at_most(2), 2.0, True),
        (report.at_most(2), 2.01, False),
    ],
)
def test_targets(target: report.Target, value: float, holds: bool) -> None:
    assert report.Line("x", [value], "x", target).shown()["holds"] is holds


def test_a_figure_without_a_target_neither_holds_nor_fails() -> None:
    shown = report.Line("x", [1.23456], "ms").shown()
    assert (shown["target"], shown["holds"], shown["value"]) == (None, None, 1.235)
    assert report.Report("floor", {}, [report.Line("x", [1.0], "ms")]).holds()


def test_throughput_promises_three_ratios() -> None:
    taken = series(podium_process=600, floor_process=1000, podium_power=500, floor_power=300)
    lines = {
        line.name: line.shown()
        for durability in contender.DURABILITIES
        for line in throughput.compared(taken, durability)
    }
    assert lines["podium process / floor process, throughput at 200"]["target"] == ">= 0.5"
    assert lines["podium process / floor process, throughput at 200"]["holds"] is True
    assert lines["podium process / floor process, latency at 1"]["target"] == "<= 2"
    assert lines["podium power / floor power, throughput at 200"]["target"] == ">= 2"
    assert lines["podium power / floor power, throughput at 200"]["holds"] is False


def test_peers_are_compared_at_200_and_at_their_best() -> None:
    peer = next(peer for peer in peers.PEERS if peer.name == "langgraph-memory")
    taken = Series(
        {
            ("langgraph-memory", 10): [Figures(300, 1)],
            ("langgraph-memory", 200): [Figures(200, 1)],
            ("podium process", 200): [Figures(600, 1)],
        },
        {},
    )
    lines = {line.name: line.shown() for line in peers.compared(taken, [peer], ["process"])}
    alike = lines["podium process / langgraph-memory, throughput at 200"]
    assert (alike["value"], alike["target"], alike["holds"]) == (3.0, ">= 2", True)
    best = lines["podium process / langgraph-memory, throughput at 200 and 10"]
    assert (best["value"], best["target"]) == (2.0, None)


def test_an_unknown_contender_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["peers", "--only", "temporal"]) == 2
    assert "no contender temporal; there are langgraph-postgres" in capsys.readouterr().err


def test_inflight_counts_memory_above_what_an_idle_conductor_takes() -> None:
    few = inflight.Held(makespan_s=12.0, before_bytes=100_000_000, peak_bytes=140_000_000)
    many = inflight.Held(makespan_s=15.0, before_bytes=100_000_000, peak_bytes=500_000_000)
    shown = {
        line.unit: line.shown() for line in inflight.compared([inflight.Pair(few, many)], "power")
    }
    assert (shown["KB"]["value"], shown["KB"]["holds"]) == (40.0, True)
    assert (shown["x"]["value"], shown["x"]["holds"]) == (1.25, True)


def test_a_report_is_saved_as_it_is_printed(tmp_path: pathlib.Path) -> None:
    conditions = report.conditions(OPTIONS, tmp_path, series(floor=10))
    made = report.Report("floor", conditions, report.plain(series(floor=10), "floor"))
    assert json.loads(made.save(tmp_path).read_text()) == made.shown()
    assert conditions["cores"] >= 1
    assert conditions["fsync_p50_ms"] > 0
    assert {"python", "nats-server", "nats-py"} <= conditions["versions"].keys()
    assert "floor, throughput at 200" in made.table()
    assert [figure["unit"] for figure in made.shown()["figures"]] == ["ms", "runs/s"]


def test_a_missed_target_stands_out_in_the_table() -> None:
    conditions = {"cores": 2, "cpu": "x", "fsync_p50_ms": 0.1}
    made = report.Report("floor", conditions, [report.Line("a", [1], "x", report.at_least(2))])
    assert made.table().splitlines()[-1].endswith(">= 2    MISSED")
    assert not made.holds()


def test_a_folder_in_memory_is_refused() -> None:
    shared = pathlib.Path("/dev/shm")
    if report.file_system(shared) not in report.IN_MEMORY:
        pytest.skip("this machine has no folder in memory to try")
    with (
        pytest.raises(BenchmarkError, match="--data FOLDER"),
        report.data_folder(shared),
    ):
        pass


def test_a_folder_that_is_absent_is_refused(tmp_path: pathlib.Path) -> None:
    with (
        pytest.raises(BenchmarkError, match="is no folder"),
        report.data_folder(tmp_path / "absent"),
    ):
        pass


def test_a_missing_postgres_names_the_package(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(postgres, "DEBIAN_FOLDER", tmp_path)
    with pytest.raises(BenchmarkError, match="apt-get install postgresql"):
        postgres.binaries()


def test_the_newest_of_debians_versions_is_taken(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("9.6", "15", "17"):
        folder = tmp_path / version / "bin"
        folder.mkdir(parents=True)
        (folder / "initdb").touch()
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(postgres, "DEBIAN_FOLDER", tmp_path)
    assert postgres.binaries().home == tmp_path / "17" / "bin"


async def test_a_run_that_misses_results_fails_the_measurement() -> None:
    async def short(_: str) -> int:
        return serving.RESULTS - 1

    with pytest.raises(ExceptionGroup) as caught:
        await serving.measure(short, 2, 4)
    assert "saw 11 results instead of 12" in str(caught.value.exceptions[0])


async def test_no_more_runs_are_in_flight_than_asked() -> None:
    running = highest = 0
    names: set[str] = set()

    async def run(name: str) -> int:
        nonlocal running, highest
        running += 1
        highest = max(highest, running)
        names.add(name)
        for _ in range(3):
            await asyncio.sleep(0)
        running -= 1
        return serving.RESULTS

    figures = await serving.measure(run, 5, 40)
    assert highest == 5
    assert len(names) == 40
    assert figures["runs_per_s"] > 0


def test_the_peers_side_needs_nothing_but_the_standard_library() -> None:
    program = "import sys, benchmarks.serving; print(*sys.modules)"
    command = [sys.executable, "-S", "-c", program]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    ours = {name for name in shown.stdout.split() if name.startswith("benchmarks")}
    assert ours == {"benchmarks", "benchmarks.serving"}


ECHO = "import sys; print('{}', flush=True)\nfor line in sys.stdin: print(line, end='', flush=True)"


def test_a_child_answers_and_ends_with_its_input(tmp_path: pathlib.Path) -> None:
    child = Child("echo", [sys.executable, "-c", ECHO], tmp_path / "log")
    assert child.ask({"concurrency": 1}) == {"concurrency": 1}
    with pytest.raises(BenchmarkError, match="the process of echo answered with an error: lost"):
        child.ask({"error": "lost"})
    child.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_a_child_that_dies_shows_its_last_words(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BenchmarkError, match=r"(?s)ended without an answer.*no such peer"):
        Child("peer", [sys.executable, "-c", "raise SystemExit('no such peer')"], tmp_path / "log")


def test_without_podium_the_command_says_what_can_be_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "benchmarks.podium_contender", None)
    assert main(["throughput"]) == 2
    assert "python -m benchmarks floor" in capsys.readouterr().err


@pytest.fixture
def installed() -> postgres.Binaries:
    try:
        return postgres.binaries()
    except BenchmarkError:
        pytest.skip("this machine has no Postgres server")


def test_postgres_runs_as_it_ships_and_leaves_nothing(installed: postgres.Binaries) -> None:
    with report.data_folder(None) as data:
        with postgres.postgres(data / "pg"):
            pid = int((data / "pg/data/postmaster.pid").read_text().split()[0])
            assert psutil.Process(pid).uids().real != 0
            assert (data / "pg/.s.PGSQL.5432").is_socket()
            settings = (data / "pg/data/postgresql.conf").read_text().splitlines()
            assert not [line for line in settings if line.startswith(("fsync", "synchronous"))]
        assert not psutil.pid_exists(pid)
        assert list(data.iterdir()) == []


def test_a_peer_that_does_not_start_takes_its_postgres_down(
    installed: postgres.Binaries, tmp_path: pathlib.Path
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no langgraph here >&2\n")
    broken.chmod(0o755)
    with report.data_folder(None) as data:
        peer = peers.PeerContender(peers.PEERS[0], broken, data)
        with pytest.raises(BenchmarkError, match="no langgraph here"), contender.up(peer, "power"):
            pass
        assert not list(data.glob("peer-*/pg"))


@pytest.mark.parametrize("durability", contender.DURABILITIES)
def test_the_floor_does_every_run_on_a_real_server(
    durability: Durability, tmp_path: pathlib.Path
) -> None:
    measured = floor.Floor(tmp_path)
    with contender.up(measured, durability):
        figures = measured.measure(concurrency=5, runs=20)
    assert figures.runs_per_s > 1
    assert figures.p50_ms > 0
    config = next(tmp_path.glob("floor-*/nats.conf")).read_text()
    assert ("sync_interval: always" in config) is (durability == "power")
    with pytest.raises(BenchmarkError, match="was not started"):
        measured.measure(1, 1)


def test_the_last_line_is_the_report(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    arguments = ["floor", "--json", "--durability", "process", "--repeats", "1", "--runs", "20"]
    assert main([*arguments, "--data", str(tmp_path)]) == 0
    shown = msgspec.json.decode(capsys.readouterr().out.splitlines()[-1])
    assert shown.keys() == {"benchmark", "conditions", "figures"}
    assert [figure["name"] for figure in shown["figures"]] == [
        "floor process, latency at 1",
        "floor process, throughput at 200",
    ]
    assert list(tmp_path.iterdir()) == []


def test_sampling_is_measured_in_turns_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "REPLIES", 4)
    monkeypatch.setattr(sampling, "RUNS", 2)
    loaded = sampling.made(sampling.Kind("toy", 1, 16, 2, 16))
    work = sampling.drawn(1, len(loaded.tokenizer))
    assert work == sampling.drawn(1, len(loaded.tokenizer))
    rows = sampling.sampled(loaded, work)
    assert [len(row.output) for row in rows] == [want for _, want in work]
    found = {
        "toy, 1 thread, Podium": [sampling.ours(loaded, work)],
        "toy, 1 thread, generate": [sampling.theirs(loaded, work)],
        "toy, 1 thread, turns, read again": [sampling.turns(loaded, 1, kept=False)],
        "toy, 1 thread, turns": [sampling.turns(loaded, 1, kept=True)],
    }
    lines = {line.name: line for line in sampling.compared(found)}
    assert lines["toy, 1 thread, Podium / generate"].target == sampling.TARGET
    assert len(lines) == len(found) + 2
    assert all(value > 0 for line in lines.values() for value in line.values)


def test_the_peak_of_a_process_is_not_that_of_whoever_started_it() -> None:
    """What a process had that forked counts in `resource` as if its program had had it."""
    told = "from benchmarks.child import peak_bytes; "
    alone = f"{told}print(peak_bytes())"
    large = (
        f"{told}import subprocess, sys; large = b'x' * 200_000_000; print(peak_bytes()); "
        f"sys.stdout.flush(); subprocess.run([sys.executable, '-c', {alone!r}], check=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", large], cwd=ROOT, capture_output=True, text=True, check=True
    )
    mine, started = map(int, done.stdout.split())
    assert mine > 200_000_000
    assert 0 < started < 100_000_000
