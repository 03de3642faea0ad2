"""The contract of every command: JSON shapes, closed kinds, exit codes, talk on stderr."""

import re
from pathlib import Path
from typing import Any, Final, get_args

import pytest

from podium.cli.app import make
from protocol.errors import ErrorKind, Unreachable
from tests.e2e.memory_host import Said, Shell
from tests.model_folders import model_in

READ: Final = {"as_of", "counts", "rows", "cursor", "truncated"}
MUTATION: Final = {"target", "applied", "dry_run", "event_id", "detail"}
ERROR: Final = {"code", "kind", "message", "hint", "next"}
CODES: Final = {0, 1, 2, 3, 4, 5, 130}

OFFLINE: Final = "podium/pools/offline.toml"

RUN: Final = "$RUN"
"""Stands for the id of a finished run."""

FILE: Final = "$FILE.podium"
LONG: Final = f"{'x' * 300}.podium"
"""No file can have such a name."""
"""Stands for an exported file of a run that is not here."""

DATASET: Final = "$DATASET"
"""Stands for the folder of a data set."""

EVENT: Final = f"{RUN}@8"
"""Stands for one of its events."""

PAUSED: Final = "$PAUSED"
"""Stands for the id of a run that has paused."""

MODEL: Final = "$MODEL"
"""Stands for the folder of a model with versions."""

CASES: Final[list[tuple[str, list[str], int]]] = [
    ("launch", ["run", "How large is Chad?"], 0),
    ("mutation", ["run", "--dry-run", "How large is Chad?"], 0),
    ("error", ["run", "--detach", "How large is Chad?"], 2),
    ("error", ["run"], 2),
    ("read", ["runs"], 0),
    ("read", ["runs", "list", "--status", "finished", "--limit", "1"], 0),
    ("read", ["runs", "show", RUN], 0),
    ("read", ["runs", "show", RUN, "--content"], 0),
    ("read", ["runs", "show", RUN, "--events"], 0),
    ("read", ["runs", "bill", RUN], 0),
    ("read", ["runs", "bill", RUN, "--alone"], 0),
    ("read", ["runs", "bill", FILE], 0),
    ("error", ["runs", "bill", "zzzz"], 4),
    ("watch", ["runs", "watch", RUN], 0),
    ("error", ["runs", "show", "zzzz"], 4),
    ("error", ["runs", "cancel", RUN], 1),
    ("mutation", ["runs", "cancel", PAUSED, "--reason", "enough"], 0),
    ("mutation", ["runs", "pause", PAUSED], 0),
    ("mutation", ["runs", "resume", PAUSED, "--by", "anna"], 0),
    ("mutation", ["runs", "answer", PAUSED, "--dry-run"], 0),
    ("error", ["runs", "replan", PAUSED], 1),
    ("error", ["runs", "replan", PAUSED, "--call", "1-7", "--dry-run"], 1),
    ("mutation", ["runs", "extend", PAUSED, "--rounds", "2"], 0),
    ("error", ["runs", "extend", PAUSED], 2),
    ("read", ["trace", "export", RUN], 0),
    ("read", ["trace", "export", RUN, "--children", "--content", "--messages"], 0),
    ("read", ["trace", "export", RUN, "--file", "/dev/null"], 0),
    ("error", ["trace", "export", RUN, "--file", "/nowhere/at/all.json"], 2),
    ("error", ["trace", "export", RUN, "--file", "a", "--otlp", "http://b"], 2),
    ("error", ["trace", "export", "zzzz"], 4),
    ("read", ["verify", RUN], 0),
    ("read", ["verify", RUN, "--content"], 0),
    ("read", ["verify", "--all"], 0),
    ("error", ["verify"], 2),
    ("error", ["verify", "zzzz"], 4),
    ("error", ["verify", "0123456789abc"], 4),
    ("mutation", ["export", RUN, "--out", "a.podium"], 0),
    ("mutation", ["export", RUN, "--format", "atif", "--content"], 0),
    ("mutation", ["export", RUN, "--format", "orchestration"], 0),
    ("error", ["export", "zzzz"], 4),
    ("error", ["export", RUN, "--out", "-"], 2),
    ("mutation", ["import", FILE], 0),
    ("mutation", ["import", FILE, "--dry-run"], 0),
    ("error", ["import", "nowhere.podium"], 4),
    ("error", ["import", LONG], 4),
    ("error", ["verify", LONG], 4),
    ("read", ["runs", "show", FILE, "--content"], 0),
    ("error", ["runs", "show", "nowhere.podium"], 4),
    ("mutation", ["archive", RUN], 0),
    ("mutation", ["archive", "--all-ended", "--dry-run"], 0),
    ("mutation", ["archive", "--older-than", "30d"], 0),
    ("error", ["archive", "--check"], 4),
    ("error", ["archive"], 2),
    ("error", ["archive", "--older-than", "soon"], 2),
    ("error", ["archive", PAUSED], 1),
    ("launch", ["fork", RUN, "--at", "1-0", "--set", "calls.1-0.arguments.name=Mali"], 0),
    ("launches", ["fork", RUN, "--at", "end", "--times", "3"], 0),
    ("mutation", ["fork", RUN, "--at", "3", "--dry-run"], 0),
    ("error", ["fork", RUN], 2),
    ("error", ["fork", RUN, "--at", "999"], 2),
    ("error", ["fork", RUN, "--at", "3", "--set", "calls.9-9.value=1"], 2),
    ("error", ["fork", RUN, "--at", "3", "--detach"], 2),
    ("error", ["fork", RUN, "--at", "3", "--times", "0"], 2),
    ("launch", ["rerun", RUN, "--from", "1-0"], 0),
    ("error", ["rerun", RUN], 1),
    ("error", ["rerun", "zzzz"], 4),
    ("error", ["rerun", FILE], 2),
    ("error", ["fork", FILE, "--at", "end"], 2),
    ("read", ["diff", RUN, RUN], 0),
    ("read", ["diff", RUN, PAUSED, "--content"], 3),
    ("error", ["diff", RUN, "zzzz"], 4),
    ("read", ["replay", RUN], 0),
    ("read", ["replay", RUN, "--until", "RoundPlanned", "--break", "type=PolicyAsked"], 0),
    ("error", ["replay", RUN, "--break", "colour=red"], 2),
    ("error", ["replay", RUN, "--until", "RunFailed"], 4),
    ("read", ["timeline", RUN], 0),
    ("read", ["timeline", RUN, "--type", "callsettled", "--limit", "1", "--content"], 0),
    ("error", ["timeline", RUN, "--type", "nothing"], 2),
    ("read", ["state", RUN, "--at", "5"], 0),
    ("read", ["state", RUN, "--path", "calls.1-0", "--content"], 0),
    ("error", ["state", RUN, "--path", "calls.9-9"], 4),
    ("read", ["state", RUN, "--at", "end"], 0),
    ("read", ["state", RUN, "--at", "1-0"], 0),
    ("error", ["state", RUN, "--at", "nowhere"], 2),
    ("error", ["state", EVENT, "--at", "end"], 2),
    ("error", ["state", RUN, "--at", "999"], 2),
    ("read", ["causes", EVENT], 0),
    ("error", ["causes", RUN], 2),
    ("read", ["replay", FILE, "--until", "3"], 0),
    ("read", ["timeline", FILE], 0),
    ("read", ["state", FILE, "--at", "5"], 0),
    ("read", ["causes", f"{FILE}@8"], 0),
    ("read", ["effects", f"{FILE}@8"], 0),
    ("read", ["effects", EVENT, "--limit", "2"], 0),
    ("error", ["effects", f"{RUN}@999"], 2),
    ("mutation", ["up"], 0),
    ("mutation", ["up", "--dry-run"], 0),
    ("mutation", ["down"], 0),
    ("mutation", ["serve", "--dry-run", "--port", "0"], 0),
    ("mutation", ["mcp", "--dry-run"], 0),
    ("read", ["gym", "show", "17"], 0),
    ("read", ["gym", "show", "3", "--set", "unseen-pools", "--family", "code", "--hosted"], 0),
    ("read", ["gym", "pool"], 0),
    ("read", ["gym", "play", "sloppy", "--count", "5", "--families"], 0),
    ("read", ["gym", "play", "rules", "--count", "3", "--family", "lookup"], 0),
    ("read", ["gym", "pool", "--small"], 0),
    ("error", ["gym", "live", "--small"], 2),
    ("error", ["gym", "live", "--count", "0"], 2),
    ("error", ["gym", "play", "nobody", "--count", "3"], 2),
    ("error", ["gym", "play", "oracle", "--count", "0"], 2),
    ("error", ["gym", "show", "17", "--set", "nothing"], 4),
    ("error", ["gym", "show", "17", "--family", "nothing"], 4),
    ("error", ["mcp", "--pool", "nowhere.toml"], 4),
    ("error", ["serve", "--host", "0.0.0.0", "--port", "0"], 2),
    ("error", ["serve", "--host", "nowhere.invalid"], 2),
    ("error", ["serve", "--port", "-1"], 2),
    ("error", ["serve", "--token-env", "NOT_SET"], 2),
    ("error", ["serve", "--token-file", "nowhere.txt"], 4),
    ("error", ["serve", "--port", "0", "--pool", OFFLINE, "--pool", OFFLINE], 2),
    ("error", ["serve", "--pool", "nowhere.toml"], 4),
    ("read", ["status"], 0),
    ("read", ["doctor"], 0),
    ("read", ["worker", "list"], 0),
    ("error", ["worker", "apply", "pool.toml"], 4),
    ("read", ["worker", "check", OFFLINE], 0),
    ("error", ["worker", "check", "nowhere.toml"], 4),
    ("read", ["model", "list", MODEL], 0),
    ("error", ["model", "list"], 2),
    ("error", ["model", "list", "nowhere"], 4),
    ("read", ["model", "show", MODEL], 0),
    ("read", ["model", "show", f"local:{MODEL}", "2"], 0),
    ("error", ["model", "show", MODEL, "9"], 4),
    ("read", ["model", "compare", MODEL, "1", "current"], 0),
    ("error", ["model", "compare", MODEL, "1", "next"], 4),
    ("mutation", ["model", "promote", MODEL, "2", "--why", "RL helps"], 0),
    ("mutation", ["model", "promote", MODEL, "2", "--dry-run"], 0),
    ("error", ["model", "promote", MODEL, "3"], 1),
    ("mutation", ["model", "promote", MODEL, "3", "--force", "its speed"], 0),
    ("error", ["model", "promote", MODEL, "1"], 2),
    ("error", ["model", "promote", MODEL, "4"], 2),
    ("error", ["model", "promote", MODEL, "4", "--evaluator", "nowhere:at_all"], 2),
    ("mutation", ["model", "rollback", MODEL], 0),
    ("mutation", ["model", "rollback", MODEL, "--dry-run"], 0),
    ("mutation", ["model", "canary", MODEL, "2", "--share", "0.1"], 0),
    ("mutation", ["model", "canary", MODEL, "2", "--share", "0.1", "--dry-run"], 0),
    ("error", ["model", "canary", MODEL, "1", "--share", "0.1"], 2),
    ("error", ["model", "canary", MODEL, "2", "--share", "1.1"], 2),
    ("error", ["model", "canary", MODEL], 2),
    ("error", ["model", "canary", MODEL, "--end"], 1),
    ("read", ["config", "show"], 0),
    ("read", ["reproduce", f"{RUN}/1-0"], 0),
    ("error", ["reproduce", f"{RUN}/9-0"], 4),
    ("error", ["reproduce", RUN], 2),
    ("read", ["sim", "--seed", "7"], 0),
    ("read", ["sim", "--seed", "7", "--faults", "0,1", "--runs", "0"], 0),
    ("error", ["sim", "--faults", "some"], 2),
    ("error", ["runs", "list", "--colour"], 2),
    ("read", ["answer"], 0),
    ("error", ["answer", RUN, "Lima"], 1),
    ("error", ["answer", PAUSED], 2),
    ("error", ["answer", "zzzz", "Lima"], 4),
    ("mutation", ["label", RUN, "helpful", "very"], 0),
    ("mutation", ["label", RUN, "--reward", "accuracy=1", "--by", "ada"], 0),
    ("mutation", ["label", RUN, "seen", "true", "--parsed", "--dry-run"], 0),
    ("error", ["label", RUN], 2),
    ("error", ["label", RUN, "helpful"], 2),
    ("error", ["label", RUN, "seen", "tru", "--parsed"], 2),
    ("error", ["label", RUN, "--reward", "accuracy=high"], 2),
    ("error", ["label", RUN, "--reward", "accuracy=nan"], 2),
    ("error", ["label", FILE, "helpful", "very"], 2),
    ("error", ["label", "zzzz", "helpful", "very"], 4),
    ("read", ["score", RUN], 0),
    ("read", ["score", RUN, "--preset", "parl", "--progress", "0.5"], 0),
    ("read", ["score", FILE], 0),
    ("read", ["score", "--all", "--judge"], 0),
    ("error", ["score"], 2),
    ("error", ["score", RUN, "--preset", "best"], 2),
    ("error", ["score", RUN, "--progress", "2"], 2),
    ("error", ["score", RUN, "--recipe", "nowhere.json"], 2),
    ("error", ["score", FILE, "--judge"], 2),
    ("error", ["score", "zzzz"], 4),
    ("error", ["run", "--check", "{}", "How large is Chad?"], 1),
    ("error", ["run", "--check", "Paris", "How large is Chad?"], 1),
    ("mutation", ["dataset", "build", "sft", "--unchecked", "--fresh"], 0),
    ("mutation", ["dataset", "build", "rl", "--dry-run"], 0),
    ("mutation", ["dataset", "build", "preference", FILE, "--format", "openai"], 0),
    ("error", ["dataset", "build", "dpo"], 2),
    ("error", ["dataset", "build", "sft", "--since", "soon"], 2),
    ("error", ["dataset", "build", "rl", "--format", "trl"], 2),
    ("error", ["dataset", "build", "sft", "--reward", "toolorchestra"], 2),
    ("error", ["dataset", "build", "sft", "--tokenizer", "nowhere"], 4),
    ("error", ["dataset", "build", "sft", "nowhere.podium"], 4),
    ("read", ["dataset", "show", DATASET], 0),
    ("error", ["dataset", "show", "nowhere"], 4),
    ("read", ["dataset", "preview", DATASET, "--rows", "1"], 0),
    ("error", ["dataset", "preview", DATASET, "--rows", "0"], 2),
    ("error", ["dataset", "preview", "nowhere"], 4),
    ("mutation", ["train", "new", "small", "--gym", "small", "--episodes", "20"], 0),
    ("error", ["train", "new", "small"], 2),
    ("error", ["train", "new", "small", "--gym", "seen"], 2),
    ("error", ["train", "new", "small", "--dataset", "nowhere"], 4),
    ("error", ["train", "sft", "nowhere", "--model", MODEL], 4),
    ("error", ["train", "sft", DATASET, "--model", "nowhere"], 4),
    ("error", ["train", "rl", DATASET, "--model", MODEL], 2),
    ("error", ["train", "rl", "--gym", "small", "--model", MODEL], 2),
    ("error", ["train", "report"], 2),
    ("error", ["train", "report", "nowhere"], 4),
    ("error", ["sing"], 2),
]
"""Shape, command, exit code. Every command of the tree is here; a test below sees to it."""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, USER="tester")


def fill(shell: Shell, arguments: list[str]) -> list[str]:
    """Put real ids in."""
    ids = {}
    if any(RUN in each for each in arguments) or arguments[:2] == ["runs", "list"]:
        ids[RUN] = shell.begin()
    if any(FILE in each for each in arguments):
        other = Shell(shell.folder, USER="other")
        assert other("export", other.begin(), "--out", "other.podium").code == 0
        ids[FILE] = "other.podium"
    if any(MODEL in each for each in arguments):
        ids[MODEL] = model_in(shell.folder / "model").name
    if PAUSED in arguments:
        shell("run", "--rounds", "0", "--on-limit", "pause", "--json", "How large is Chad?")
        ids[PAUSED] = shell("runs", "--json", "--status", "paused").json()["rows"][0]["run"]
    if DATASET in arguments:
        shell.begin()
        assert shell("dataset", "build", "sft", "--unchecked", "--out", "set").code == 0
        ids[DATASET] = "set"
    for name, run in ids.items():
        arguments = [each.replace(name, run) for each in arguments]
    return arguments


@pytest.mark.parametrize(("shape", "arguments", "code"), CASES, ids=str)
def test_json(shell: Shell, shape: str, arguments: list[str], code: int) -> None:
    said = shell(*fill(shell, arguments), "--json")
    assert said.code == code, said
    check_shape(shape, said)


@pytest.mark.parametrize(("shape", "arguments", "code"), CASES, ids=str)
def test_text(shell: Shell, shape: str, arguments: list[str], code: int) -> None:
    said = shell(*fill(shell, arguments))
    assert said.code == code, said
    if shape == "error":
        assert said.out == ""
        assert said.err.startswith("error: ")
        assert len(said.err.splitlines()) <= 24, "an error fits on one screen"
    else:
        assert said.out or arguments in (
            ["runs"],
            ["verify", "--all"],
            ["answer"],
        ), "results are on stdout"
    assert "\x1b" not in said.out + said.err, "no colours where there is no terminal"


@pytest.mark.parametrize(("shape", "arguments", "code"), CASES, ids=str)
def test_terminal(shell: Shell, shape: str, arguments: list[str], code: int) -> None:
    said = shell(*fill(shell, arguments), terminal=True)
    assert said.code == code, said
    assert said.err.count("\x1b[?25l") == said.err.count("\x1b[?25h"), "the cursor is shown again"


def check_shape(shape: str, said: Said) -> None:
    match shape:
        case "read":
            read = said.json()
            assert set(read) == READ
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", read["as_of"])
            assert read["truncated"] == (read["cursor"] is not None)
            assert all(isinstance(row, dict) for row in read["rows"])
            assert all(type(number) is int for number in read["counts"].values())
        case "mutation":
            mutation = said.json()
            assert set(mutation) == MUTATION
            assert mutation["target"]
            assert mutation["detail"]
            assert not (mutation["dry_run"] and mutation["applied"])
            assert not (mutation["dry_run"] and mutation["event_id"])
        case "error":
            check_error(said)
        case "launch":
            first, last = said.lines()
            assert set(first["launch"]) == {"run_id", "view_url", "trace_id"}
            assert last["done"]["run_id"] == first["launch"]["run_id"]
        case "launches":
            lines = said.lines()
            launched = [each["launch"]["run_id"] for each in lines if "launch" in each]
            ended = [each["done"]["run_id"] for each in lines if "done" in each]
            assert len(lines) == 2 * len(launched)
            assert sorted(launched) == sorted(ended)
        case "watch":
            *commits, last = said.lines()
            assert [each["commit"]["n"] for each in commits] == [*range(1, len(commits) + 1)]
            assert last["done"]["outcome"] == "finished"
            assert last["done"]["answer"] is None, "content has to be asked for"


def check_error(said: Said) -> dict[str, Any]:
    error: dict[str, Any] = said.json()["error"]
    assert set(error) == ERROR
    assert error["kind"] in get_args(ErrorKind)
    assert said.code in CODES - {0}
    assert error["message"]
    assert error["hint"], "every error says what to do next"
    assert error["next"] is None or error["next"].startswith("podium ")
    assert "`" not in (error["next"] or "")
    return error


def commands(app: Any, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Every command of the tree that does something."""
    found = set()
    for name in app:
        if name.startswith("-"):
            continue
        found |= commands(app[name], (*path, name))
    if app.default_command is not None:
        found.add(path)
    return found


def test_every_command_is_in_the_table() -> None:
    every = commands(make())
    tried = {
        path for path in every for _, arguments, _ in CASES if tuple(arguments[: len(path)]) == path
    }
    assert ("runs", "watch") in every
    assert every - tried == set()


@pytest.mark.parametrize("path", sorted(commands(make())), ids=" ".join)
def test_every_command_has_help_and_json(shell: Shell, path: tuple[str, ...]) -> None:
    said = shell(*path, "--help")
    assert said.code == 0
    assert "--json" in said.out
    assert said.err == ""


def test_unreachable_is_5_and_may_be_tried_again(shell: Shell) -> None:
    shell.deployments.failure = Unreachable("no answer from there", hint="podium doctor")
    for arguments in (["runs"], ["run", "How large is Chad?"], ["status", "--nats", "nats://x"]):
        said = shell(*arguments, "--json")
        assert said.code == 5
        assert check_error(said)["kind"] == "unreachable"


def test_a_bug_of_ours_is_internal_and_shows_where(shell: Shell) -> None:
    shell.deployments.failure = LookupError("nobody thought of this")
    said = shell("runs", "--json")
    assert said.code == 1
    assert check_error(said)["kind"] == "internal"
    assert "Traceback" in said.err


def test_hints_are_on_stderr_and_can_be_typed(shell: Shell) -> None:
    said = shell("run", "How large is Chad?")
    assert "podium runs show" in said.err
    assert "podium" not in said.out
    typed = re.search(r"podium (runs show \w+ --content)", said.err)
    assert typed is not None
    assert shell(*typed[1].split()).code == 0
