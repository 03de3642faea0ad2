"""Make the logs that must not verify, and one of an old form, out of a recorded one.

``python -m tests.golden.spoil VERSION``. Like those that are recorded they are made once and then
only read; the script is how anybody can see what was done to them.
"""

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.codec import digest
from replay.chain import Messages, Stored
from replay.history import values
from replay.verify import verify
from tests.golden.store import LOGS, MUST_FAIL, OLD_FORM, Golden, Manifest, Reason, write

__all__ = ["main", "reason"]

Commits = list[dict[str, Any]]
"""Commits as JSON has them."""


def settled_otherwise(commits: Commits) -> None:
    """The report says OK, and the call is settled as failed."""
    event = _first(commits, "CallSettled", report=True)
    event["status"], event["fault"] = "EXEC_ERR", "worker"


def budget_overrun(commits: Commits) -> None:
    """The budget allows one round, and there are two."""
    _first(commits, "RunStarted")["budget"]["rounds"] = 1


def attempt_skipped(commits: Commits) -> None:
    """The first attempt has the number 2."""
    _first(commits, "AttemptStarted")["attempt"] = 2


def old_rules(commits: Commits) -> None:
    """Rules of another version waited a second longer."""
    for commit in commits:
        for event in commit["events"]:
            if event["type"] == "RunActivated":
                event["rules"] = "0"
            if event["type"] == "AttemptStarted":
                event["deadline"] += 1_000


def other_prompt(commits: Commits) -> None:
    """The policy was shown something else in its second question."""
    replies = [e for c in commits for e in c["events"] if e["type"] == "PolicyReplied"]
    replies[1]["prompt"] = "0" * 64


def newer(commits: Commits) -> None:
    """A later version has written an event that this one doesn't know."""
    commits[1]["events"].append({"type": "ChoirJoined", "voices": 3})


def old_form(commits: Commits) -> None:
    """As if the end of a round had once had another name, and its number another."""
    for commit in commits:
        for event in commit["events"]:
            if event["type"] == "RoundClosed":
                event["type"], event["number"] = "RoundSettled", event.pop("round")


CONSISTENT: Final[dict[str, Callable[[Commits], None]]] = {
    each.__name__: each
    for each in (
        *(settled_otherwise, budget_overrun, attempt_skipped, old_rules, other_prompt, newer),
    )
}
"""What is done to the JSON, with every hash made right again."""


def flipped(stored: list[Stored]) -> list[Stored]:
    """One bit of the second commit."""
    data = bytearray(stored[1].data)
    data[100] ^= 4
    return [stored[0], Stored(stored[1].seq, bytes(data)), *stored[2:]]


def removed(stored: list[Stored]) -> list[Stored]:
    """The second commit."""
    return [stored[0], *stored[2:]]


def swapped(stored: list[Stored]) -> list[Stored]:
    """The second and the third commit."""
    return [stored[0], stored[2], stored[1], *stored[3:]]


DAMAGES: Final[dict[str, Callable[[list[Stored]], list[Stored]]]] = {
    each.__name__: each for each in (flipped, removed, swapped)
}
"""What is done to the messages, with nothing made right."""


def main(arguments: list[str] | None = None) -> int:
    """Make all of them out of a recorded story. Ends with 2 if they are there already."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden.spoil", description=__doc__)
    parser.add_argument("version", help="of the recorded logs of which they are made")
    asked = parser.parse_args(arguments)
    if MUST_FAIL.exists() or OLD_FORM.exists():
        sys.stderr.write("they are there: golden logs are never made again\n")
        return 2
    whole = Golden(LOGS / asked.version / "rounds")
    for name, change in CONSISTENT.items():
        _spoilt(whole, MUST_FAIL / name, change.__doc__ or "", _chained(whole, change))
    for name, damage in DAMAGES.items():
        stored = damage(whole.messages(whole.runs[0]).commits)
        _spoilt(whole, MUST_FAIL / name, damage.__doc__ or "", stored)
    _put(whole, OLD_FORM / "renamed", old_form.__doc__ or "", _chained(whole, old_form))
    return 0


def _chained(whole: Golden, change: Callable[[Commits], None]) -> list[Stored]:
    """The commits with something changed, each following the one before."""
    stored = whole.messages(whole.runs[0]).commits
    commits = [msgspec.json.decode(each.data) for each in stored]
    change(commits)
    found: list[Stored] = []
    prev = ""
    for commit, each in zip(commits, stored, strict=True):
        data = msgspec.json.encode({**commit, "prev": prev})
        prev = digest(data)
        found.append(Stored(each.seq, data))
    return found


def _spoilt(whole: Golden, folder: Path, about: str, commits: list[Stored]) -> None:
    """Write it, and what is wrong with it."""
    made = _put(whole, folder, about, commits)
    run = made.runs[0]
    log = made.log(run)
    found = verify(log, made.messages(run), values=values(log), prompts=made.prompts())
    shutil.rmtree(folder)
    _put(whole, folder, about, commits, tuple(reason(each) for each in found.problems))


def _put(
    whole: Golden,
    folder: Path,
    about: str,
    commits: list[Stored],
    reasons: tuple[Reason, ...] = (),
) -> Golden:
    run = whole.runs[0]
    inbox = whole.messages(run).inbox
    manifest = Manifest(
        story=folder.name,
        podium=whole.manifest.podium,
        about=" ".join(about.split()),
        runs={run: {} if folder.parent == MUST_FAIL else whole.manifest.runs[run]},
        reasons=reasons,
    )
    prompts = whole.prompts().values()
    write(folder, manifest, {run: Messages(commits, inbox)}, (), prompts)
    return Golden(folder)


def reason(problem: Any) -> Reason:
    """A problem, as far as its words are a promise."""
    return Reason(**{name: getattr(problem, name) for name in Reason.__struct_fields__})


def _first(commits: Commits, kind: str, *, report: bool = False) -> dict[str, Any]:
    events = (event for commit in commits for event in commit["events"] if event["type"] == kind)
    return next(event for event in events if not report or event.get("report"))


if __name__ == "__main__":
    sys.exit(main())
