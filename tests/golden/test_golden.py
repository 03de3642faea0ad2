"""Every golden log folds to what it did, verifies, or fails for the reasons that it names."""

from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from protocol.actions import Json
from protocol.codec import decode_commit
from protocol.events import Archived, RunActivated, UnknownEvent
from protocol.run import RULES
from protocol.transitions import LEGAL
from replay.chain import Messages, RunLog
from replay.history import reports, values
from replay.verify import Verified, verify
from tests.golden.record import main as record
from tests.golden.spoil import main as spoil
from tests.golden.spoil import reason
from tests.golden.store import LOGS, MUST_FAIL, OLD_FORM, Golden, goldens, plain

GOLDEN: Final = goldens(LOGS)
FAILING: Final = goldens(MUST_FAIL)
OLD: Final = goldens(OLD_FORM)

CASES: Final = [
    pytest.param(golden, run, id=f"{golden.manifest.podium}-{golden.manifest.story}-{run}")
    for golden in GOLDEN
    for run in golden.runs
]


def shown(golden: Golden, log: RunLog) -> dict[str, Json]:
    """The values of a run's reports, those in blobs included."""
    found = values(log)
    for known, report in reports(log).items():
        if report.blob is not None:
            found[known] = golden.blob(report.blob)
    return found


def checked(golden: Golden, run: str, log: RunLog, **more: Any) -> Verified:
    messages: Messages = golden.messages(run)
    prompts = golden.prompts()
    return verify(log, messages, values=shown(golden, log), prompts=prompts, **more)


def at_least(recorded: Any, found: Any, path: str = "state") -> None:
    """All that was recorded is so today. What a later version adds is no difference."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        for name, value in recorded.items():
            assert name in found, f"{path}.{name} is gone"
            at_least(value, found[name], f"{path}.{name}")
    elif isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        for index, (one, other) in enumerate(zip(recorded, found, strict=True)):
            at_least(one, other, f"{path}.{index}")
    else:
        assert recorded == found, path


@pytest.mark.parametrize(("golden", "run"), CASES)
def test_it_folds_to_what_it_did(golden: Golden, run: str) -> None:
    log = golden.log(run)
    assert log.commits
    assert log.aside == []
    at_least(golden.manifest.runs[run], plain(log.state()))


@pytest.mark.parametrize(("golden", "run"), CASES)
def test_it_verifies(golden: Golden, run: str) -> None:
    log = golden.log(run)
    found = checked(golden, run, log)
    if rules_of(log) == {RULES}:
        assert found.problems == ()
        assert found.decided == len(log.commits)
        assert bool(found.prompts) == bool(log.state().turn and golden.prompts())
    else:  # decided by other rules: whatever differs, nothing is damaged
        assert {each.kind for each in found.problems} <= {"diverged"}


def rules_of(log: RunLog) -> set[str]:
    """The versions of the rules that decided a run."""
    return {event.rules for event in log.events() if isinstance(event, RunActivated)}


def covers_all(found: list[Golden]) -> bool:
    """Whether these have every event and every cause between them."""
    logs = [golden.log(run) for golden in found for run in golden.runs]
    kinds = {type(event) for log in logs for event in log.events()}
    causes = {c.partition(":")[0] for log in logs for commit in log.commits for c in commit.causes}
    assert UnknownEvent not in kinds
    assert causes == {"start", "fork", "activation", "policy", "inbox", "deadline"}
    return kinds >= LEGAL.keys() - {Archived}


def test_each_version_is_there_and_the_last_one_has_every_event_and_every_cause() -> None:
    versions = sorted({golden.manifest.podium for golden in GOLDEN})
    assert len(versions) >= 2
    assert covers_all([golden for golden in GOLDEN if golden.manifest.podium == versions[-1]])


@pytest.mark.parametrize("golden", FAILING, ids=lambda golden: golden.manifest.story)
def test_what_must_not_verify_fails_for_the_reasons_it_names(golden: Golden) -> None:
    (run,) = golden.runs
    found = checked(golden, run, golden.log(run))
    assert found.outcome != "sound"
    assert all(each.likely for each in found.problems)
    assert all(each.function for each in found.problems if each.kind == "diverged")
    if rules_of(golden.log(run)) <= {"0", RULES}:  # else today's decide otherwise than those did
        assert tuple(reason(each) for each in found.problems) == golden.manifest.reasons


def test_each_way_to_fail_is_there() -> None:
    what = {each.what for golden in FAILING for each in golden.manifest.reasons}
    expected = {"flipped", "removed", "out_of_order", "rules", "prompt", "unknown_event"}
    assert expected <= what


def renamed(old: dict[str, Any]) -> list[dict[str, Any]]:
    """The upcaster of the old form."""
    return [{"type": "RoundClosed", "round": old["number"]}]


@pytest.mark.parametrize("golden", OLD, ids=lambda golden: golden.manifest.story)
def test_a_log_of_an_old_form_is_read_with_its_upcaster(golden: Golden) -> None:
    (run,) = golden.runs
    decode = partial(decode_commit, upcasters={"RoundSettled": renamed})
    log = golden.decoded(run, decode)
    at_least(golden.manifest.runs[run], plain(log.state()) | {"signals": []})
    assert checked(golden, run, log, decode=decode).outcome == "sound"
    blind = golden.log(run)
    assert checked(golden, run, blind).outcome == "newer"
    assert blind.state() != log.state()


def test_recording_makes_logs_that_verify_and_touches_none_that_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record(["9.9.9", "--folder", str(tmp_path)]) == 0
    made = goldens(tmp_path)
    assert {golden.manifest.podium for golden in made} == {"9.9.9"}
    assert covers_all(made)
    for golden in made:
        for run in golden.runs:
            log = golden.log(run)
            assert checked(golden, run, log).outcome == "sound"
            at_least(golden.manifest.runs[run], plain(log.state()))
    before = sorted((p, p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file())
    assert record(["9.9.9", "--folder", str(tmp_path)]) == 2
    assert "is there: golden logs are never recorded again" in capsys.readouterr().err
    assert sorted((p, p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file()) == before
    assert spoil(["9.9.9"]) == 2


def test_a_state_that_folds_otherwise_is_found() -> None:
    recorded = {"calls": {"1-0": {"status": "OK"}}, "turns": [1, 2]}
    at_least(recorded, {**recorded, "more": 1})
    for other in ({"turns": [1, 2]}, {**recorded, "turns": [1]}, {**recorded, "turns": [1, 3]}):
        with pytest.raises(AssertionError, match="state"):
            at_least(recorded, msgspec.json.decode(msgspec.json.encode(other)))
