"""What a pool file hides stays hidden where a run is gone on with, and the file isn't named."""

import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.memory_host import Said, Shell

NUMBER: Final = "EMP-PLANTED-9"
PIN: Final = "planted-pin-10"

STAFF: Final = f'''
"""Tools and a policy that say what they should not."""
import podium

BROKEN = True

@podium.tool(attempts=1)
def person(name: str) -> dict:
    """Who somebody is."""
    return {{"name": name, "number": "{NUMBER}", "pin": "{PIN}"}}

@podium.tool(attempts=1)
def badge(name: str) -> str:
    """Somebody's badge."""
    if BROKEN:
        raise ValueError("no badge for {NUMBER}, pin='{PIN}'")
    return "badge of {NUMBER}"

class Policy:
    spec = podium.PolicySpec(name="python:MODULE:Policy")

    def decide(self, view):
        if view.turns:
            return podium.Reply(decision=podium.Decision(answer="It is {NUMBER}."))
        calls = (
            podium.PlannedCall("person", {{"name": "{NUMBER}"}}),
            podium.PlannedCall("badge", {{"name": "Ada"}}),
        )
        return podium.Reply(text="about {NUMBER}", decision=podium.Decision(calls=calls))
'''

POOL: Final = """
[pool]
policy = "python:MODULE:Policy"
module = "MODULE"
[redact]
names = ["pin"]
patterns = ['EMP-[A-Z0-9-]+']
"""


class Staff:
    """A folder with a pool that hides something, and a run of it."""

    def __init__(self, folder: Path) -> None:
        self.shell = Shell(folder, USER="tester")
        self.module = f"staff_{folder.name.replace('-', '_')}"
        self.pool = folder / "staff.toml"
        (folder / f"{self.module}.py").write_text(STAFF.replace("MODULE", self.module))
        self.pool.write_text(POOL.replace("MODULE", self.module))
        said = self("run", "--pool", str(self.pool), "--json", f"Who is {NUMBER}?")
        self.run: str = said.lines()[0]["launch"]["run_id"]

    def __call__(self, *arguments: str) -> Said:
        said = self.shell(*arguments)
        assert said.code == 0, said
        return said

    def mend(self) -> None:
        """Have the tool that failed work, where it has been imported already."""
        vars(sys.modules[self.module])["BROKEN"] = False

    def stored(self) -> str:
        """All that was ever stored."""
        store = self.shell.deployments.store
        data = [stored.data for each in store.messages.values() for stored in each]
        return b"\n".join([*data, *store.blobs.values()]).decode()


@pytest.fixture
def staff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Staff:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")
    return Staff(tmp_path)


def shows(text: str) -> list[str]:
    """Which secrets stand there."""
    return [secret for secret in (NUMBER, PIN) if secret in text]


def done(said: Said) -> dict[str, Any]:
    """The last line of ``--json``."""
    found: dict[str, Any] = said.lines()[-1]["done"]
    return found


def test_a_run_records_what_it_hides_and_no_value(staff: Staff) -> None:
    assert shows(staff.stored()) == []
    assert '"redact":{"names":["pin"],"patterns":["EMP-[A-Z0-9-]+"]}' in staff.stored()
    assert "Who is [redacted:pattern_1]?" in staff.stored()


def test_rerun_and_fork_without_the_file_hide_it_too(staff: Staff) -> None:
    staff.mend()
    rerun = done(staff("rerun", staff.run, "--reason", f"mended for {NUMBER}", "--json"))
    assert rerun["answer"] == "It is [redacted:pattern_1]."
    change = (
        "--set",
        f"task.text=Who has {NUMBER}?",
        "--set",
        f'calls.1-0.value={{"pin":"{PIN}"}}',
    )
    fork = done(staff("fork", rerun["run_id"], "--at", "end", *change, "--json"))
    assert fork["answer"] == "It is [redacted:pattern_1]."
    again = done(staff("fork", staff.run, "--at", "1-0", "--json"))
    assert again["answer"] == "It is [redacted:pattern_1]."
    assert "badge of [redacted:pattern_1]" in staff.stored()
    assert "mended for [redacted:pattern_1]" in staff.stored()
    assert "Who has [redacted:pattern_1]?" in staff.stored()
    assert shows(staff.stored()) == []
    assert staff("verify", "--all").code == 0


def test_a_file_that_hides_more_is_recorded_with_the_fork(staff: Staff) -> None:
    staff.pool.write_text(staff.pool.read_text().replace("names = [", 'names = ["number", '))
    staff("rerun", staff.run, "--pool", str(staff.pool), "--json")
    assert '"redact":{"names":["number"]}' in staff.stored()


def test_reproduce_without_the_file_shows_it_as_little(staff: Staff) -> None:
    said = staff("reproduce", f"{staff.run}/1-0")
    assert '"pin":"[redacted:pin]"' in said.out
    assert "the same as recorded" in said.err
    assert shows(said.out + said.err) == []


def test_the_search_finds_what_is_not_hidden(staff: Staff) -> None:
    staff.pool.write_text(staff.pool.read_text().partition("[redact]")[0])
    staff("run", "--pool", str(staff.pool), "Who is it?")
    assert shows(staff.stored()) == [NUMBER, PIN]


def test_a_pattern_that_spells_out_a_secret_is_refused(staff: Staff) -> None:
    staff.pool.write_text(POOL.replace("MODULE", staff.module).replace("EMP-[A-Z0-9-]+", NUMBER))
    said = staff.shell("run", "--pool", str(staff.pool), "Who is it?")
    assert said.code == 2
    assert "redact.patterns[0]" in said.err
    assert "every run records its patterns" in said.err
    assert "PODIUM_SECRET_NAME" in said.err
