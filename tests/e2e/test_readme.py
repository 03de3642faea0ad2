"""README.md shows what its commands print, but for ids and times; the freight desk is right."""

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.memory_host import Said, Shell

ROOT: Final = Path(__file__).resolve().parents[2]
FREIGHT: Final = "examples/freight"
ADDRESS: Final = "http://127.0.0.1:8717"
"""Where the servers of that example are, unless they are told otherwise."""

PODIUM: Final = ".venv/bin/podium"
SECONDS: Final = 60.0
"""For a server to end: only a broken one takes as long."""


def transcripts() -> list[tuple[list[str], list[str]]]:
    """The runs that README.md shows: their arguments, and the lines that they print."""
    found: list[tuple[list[str], list[str]]] = []
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```\n(\$ .*?)^```$", readme, re.MULTILINE | re.DOTALL):
        printed: list[str] = []
        for line in block.replace("\\\n", " ").splitlines():
            if not line.startswith("$ "):
                printed.append(line)
                continue
            command = shlex.split(line[2:])
            if command[:2] == [PODIUM, "run"]:
                printed = []
                found.append((command[1:], printed))
    return found


DESK, ATLAS = sorted(transcripts(), key=lambda each: "--pool" not in each[0])


def plain(lines: list[str]) -> list[str]:
    """Lines without ids and times, calls of a round in the order of their numbers."""
    text = "\n".join(lines)
    begun = re.search(r"run (\w+) begins", text)
    assert begun, text
    text = re.sub(r"\b\d+(\.\d+)? m?s\b", "(time)", text.replace(begun[1], "(run)"))
    text = re.sub(r"(?<=\S)  \(time\)(?=  |$)", "", text, flags=re.MULTILINE)  # not told if 0 ms
    told = [re.sub(r"^ +", "", line) for line in text.splitlines()]
    for place in range(len(told)):  # calls of one round stand together, as they came
        end = place
        while end < len(told) and re.match(r"\(time\)  \d+-\d+ ", told[end]):
            end += 1
        told[place:end] = sorted(told[place:end])
    return told


def printed(said: Said) -> list[str]:
    """What both streams show on a terminal: the answer comes where the story ends."""
    told = said.err.splitlines()
    end = next(place for place, line in enumerate(told) if line.endswith("  answered")) + 1
    return [*told[:end], *said.out.splitlines(), *told[end:]]


@pytest.fixture(scope="module")
def freight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The example's folder with its servers running, on a port of their own."""
    folder = tmp_path_factory.mktemp("examples") / "freight"
    shutil.copytree(ROOT / FREIGHT, folder)
    command = [sys.executable, str(folder / "servers.py"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as servers:
        assert servers.stdout is not None
        pool = folder / "pool.toml"
        text = pool.read_text(encoding="utf-8")
        assert ADDRESS in text
        pool.write_text(text.replace(ADDRESS, servers.stdout.readline().split()[-1]))
        yield folder
        servers.terminate()
        servers.wait(SECONDS)


def test_the_first_run_of_the_readme_prints_what_it_shows(tmp_path: Path) -> None:
    arguments, lines = ATLAS
    said = Shell(tmp_path)(*arguments)
    assert said.code == 0, said
    assert plain(printed(said)) == plain(lines)


def test_the_freight_desk_recovers_from_a_failure_of_each_status_in_two_rounds(
    tmp_path: Path, freight: Path
) -> None:
    arguments, lines = DESK
    shell = Shell(tmp_path)
    said = shell(*(part.replace(FREIGHT, str(freight)) for part in arguments))
    assert said.code == 0, said
    here = [line.replace(str(freight), FREIGHT) for line in printed(said)]
    assert plain(here) == plain(lines)
    (listed,) = shell("runs", "list", "--json").json()["rows"]
    (row,) = shell("runs", "show", listed["run"], "--content", "--json").json()["rows"]
    rounds = [turn["calls"] for turn in row["turns"] if turn["calls"]]
    first, second = [{call["worker"]: call for call in calls} for calls in rounds]
    assert {name: (call["status"], call["fault"]) for name, call in first.items()} == {
        "port": ("OK", "none"),
        "search": ("OK", "none"),
        "warehouse_weigh": ("EXEC_ERR", "worker"),
        "carrier": ("TIMEOUT", "worker"),
        "rate": ("PARSE_ERR", "policy"),
    }
    assert second.keys() == {"warehouse_label", "carrier", "rate", "total"}
    assert {call["status"] for call in second.values()} == {"OK"}
    assert f"costs {cost(freight)} NOK" in said.out


def cost(folder: Path) -> int:
    """The answer, of the figures that lie in the example's files."""
    kilograms: int = constants(folder / "warehouse.py")["LABELS"]["P-7"]
    others = constants(folder / "servers.py")
    dues = re.search(r"^Bergen (\d+) EUR", (folder / "papers" / "dues.txt").read_text("utf-8"))
    assert dues
    euros: Fraction = kilograms * Fraction(str(others["PRICES"]["Bergen"])) + int(dues[1])
    return round(euros * Fraction(str(others["RATES"]["NOK"])))


def constants(path: Path) -> dict[str, Any]:
    """What a program of the example knows."""
    return runpy.run_path(str(path))
