"""What single commands do, over a deployment in memory."""

import io
import re
import sys
from pathlib import Path

import msgspec
import pytest

from podium.cli.output import Output
from podium.cli.world import World
from protocol import subjects
from protocol.codec import encode
from protocol.errors import Busy, Unreachable
from protocol.inbox import Signal
from replay.memory_log import MemoryLog
from replay.scrub import Scrubber
from tests.e2e.memory_host import Record, Shell, Terminal

CHAD = "How large is Chad?"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, USER="tester")


def test_the_answer_alone_is_on_stdout(shell: Shell) -> None:
    said = shell("run", "Which is larger by population, Germany or France?")
    assert said.code == 0
    assert said.out.count("\n") == 1
    assert "Germany" in said.out
    assert "round 1: 2 calls: country, country" in said.err


def test_one_worker_is_one(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text('[[worker]]\nname = "python"\nadapter = "python"\n')
    pool = ("--pool", str(tmp_path / "one.toml"), "--dry-run")
    assert "a deployment of 1 worker\n" in shell("up", *pool).out
    assert "a run of 1 worker under" in shell("run", *pool, CHAD).out


def test_a_terminal_shows_the_tree_and_then_the_answer(shell: Shell) -> None:
    said = shell("run", CHAD, terminal=True)
    assert "round 1" in said.err
    assert "finished" in said.err
    assert "Chad" in said.out


def test_runs_are_listed_in_pages(shell: Shell) -> None:
    begun = {shell.begin(f"How large is {name}?") for name in ("Chad", "Mali", "Peru")}
    first = shell("runs", "list", "--limit", "2", "--json").json()
    assert (first["counts"], first["truncated"], len(first["rows"])) == ({"finished": 3}, True, 2)
    second = shell("runs", "--limit", "2", "--cursor", first["cursor"], "--json").json()
    assert (second["truncated"], second["cursor"]) == (False, None)
    assert {row["run"] for row in first["rows"] + second["rows"]} == begun
    shown = shell("runs", "--limit", "2")
    assert f"1 more: podium runs list --cursor {first['cursor']}" in shown.err
    assert shell("runs", "--cursor", "nothing", "--json").code == 4
    assert shell("runs", "--status", "paused").err.startswith("no such runs")
    assert shell("runs", "--status", "odd").code == 2
    assert shell("runs", "--limit", "0").code == 2


def test_reads_take_the_beginning_of_an_id(shell: Shell) -> None:
    run = shell.begin()
    (row,) = shell("runs", "show", run[:4], "--json").json()["rows"]
    assert (row["run"], row["status"], row["rounds"]) == (run, "finished", 1)
    assert "answer" not in row
    (call,) = row["turns"][0]["calls"]
    assert "value" not in call
    (row,) = shell("runs", "show", run[:4], "--content", "--json").json()["rows"]
    assert "Chad" in row["answer"]
    assert row["turns"][0]["calls"][0]["arguments"]["name"] == "Chad"


def test_mutations_need_the_whole_id(shell: Shell) -> None:
    run = paused(shell)
    said = shell("runs", "resume", run[:5], "--json")
    assert (said.code, said.json()["error"]["next"]) == (2, f"podium runs resume {run}")


def paused(shell: Shell) -> str:
    """A run that has paused at its budget."""
    said = shell("run", CHAD, "--rounds", "0", "--on-limit", "pause", "--json")
    launch, error = said.lines()
    assert said.code == 5
    run: str = launch["launch"]["run_id"]
    assert error["error"]["kind"] == "busy"
    assert error["error"]["next"] == f"podium runs extend {run} --rounds 4"
    return run


def test_a_paused_run_is_extended_and_goes_on(shell: Shell) -> None:
    run = paused(shell)
    assert shell("runs", "watch", run).code == 5
    shown = shell("runs", "show", run)
    assert "paused" in shown.out
    assert f"podium runs extend {run}" in shown.err
    said = shell("runs", "extend", run, "--rounds", "3", "--reason", "worth it", "--json").json()
    assert said["applied"]
    assert said["event_id"]
    ended = shell("run", "--continue", run, "--json")
    assert ended.code == 0
    assert ended.lines()[-1]["done"]["outcome"] == "finished"
    (row,) = shell("runs", "show", run, "--json").json()["rows"]
    assert row["signals"] == ["extend by tester: worth it"]


def test_a_dry_run_changes_nothing(shell: Shell) -> None:
    run = paused(shell)
    said = shell("runs", "cancel", run, "--dry-run", "--json").json()
    assert (said["dry_run"], said["applied"], said["event_id"]) == (True, False, None)
    (row,) = shell("runs", "--json").json()["rows"]
    assert row["status"] == "paused"
    assert shell("run", CHAD, "--dry-run").out.startswith("would be: a run of 5 workers")
    assert len(shell("runs", "--json").json()["rows"]) == 1


def test_detached_runs_wait_for_a_standing_deployment(shell: Shell) -> None:
    refused = shell("run", "--detach", CHAD, "--json")
    assert refused.json()["error"]["next"] == "podium up"
    assert shell("up").code == 0
    assert shell("up").code == 1
    said = shell("run", "--detach", CHAD, "--json")
    run = said.json()["launch"]["run_id"]
    assert shell.deployments.queued() == [run]
    assert "stopped" in shell("down").out
    assert shell("down", "--json").json()["applied"] is False


def test_a_run_takes_the_pool_of_the_deployment_that_stands(shell: Shell) -> None:
    pool = Path(__file__).resolve().parents[2] / "examples" / "invented_atlas" / "pool.toml"
    assert shell("up", "--pool", str(pool)).code == 0
    said = shell("run", "What is the area of Lilliput?")
    assert "310 km²" in said.out
    assert "podium up" not in said.err


def test_inputs_reach_the_task(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text('{"year": 2026}')
    run = shell("run", CHAD, "--inputs", f"@{tmp_path}/in.json", "--json").lines()[0]["launch"]
    assert run["run_id"]
    for wrong in ("{", "[1]", f"@{tmp_path}/nothing.json"):
        said = shell("run", CHAD, "--inputs", wrong, "--json")
        assert said.code in (1, 2)
        assert said.json()["error"]["hint"]


def test_a_task_that_is_too_large_is_refused_at_once(shell: Shell) -> None:
    said = shell("run", "x" * 70_000, "--json")
    assert said.code == 1
    assert said.json()["error"]["code"] == "too_large"
    assert shell.deployments.queued() == []


def test_a_run_whose_functions_are_gone_needs_its_pool_file(shell: Shell, tmp_path: Path) -> None:
    module = tmp_path / "vanishing.py"
    module.write_text(INTERRUPTING)
    pool = tmp_path / "pool.toml"
    pool.write_text('[pool]\nmodule = "vanishing"')
    assert shell("run", "--pool", str(pool), "What is the area of Chad?").code == 130
    (row,) = shell("runs", "--json").json()["rows"]
    module.unlink()
    del sys.modules["vanishing"]
    said = shell("run", "--continue", row["run"], "--json")
    assert said.code == 2
    assert "worker 'country'" in said.json()["error"]["message"]
    assert said.json()["error"]["next"].endswith("--pool FILE")


INTERRUPTING = '''
import asyncio, os, signal
from pathlib import Path
import podium

@podium.tool
async def country(name: str, fact: str) -> dict:
    """One fact of a country."""
    marker = Path(__file__).with_name("interrupted")
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()
    return {"country": name, "fact": fact, "value": 7, "unit": "km²"}
'''


def test_an_interrupted_run_says_how_to_go_on_and_does(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "interrupting.py").write_text(INTERRUPTING)
    pool = tmp_path / "pool.toml"
    pool.write_text('[pool]\nmodule = "interrupting"')
    said = shell("run", "--pool", str(pool), "What is the area of Chad?")
    assert said.code == 130
    assert said.out == ""
    assert "nothing of it is lost" in said.err
    assert "(once more: at once)" in said.err
    (row,) = shell("runs", "--json").json()["rows"]
    assert row["status"] == "working"
    assert f"podium run --continue {row['run']}" in said.err
    said = shell("run", "--continue", row["run"])
    assert said.code == 0, "the pool is the one that the run began with"
    assert "7 km²" in said.out
    assert shell("run", "--continue", row["run"]).code == 1


def test_without_a_terminal_a_line_says_that_servers_start(shell: Shell) -> None:
    began = "starting broker, Ray and workers …\n"
    assert shell("run", CHAD).err.startswith(began)
    assert began not in shell("run", CHAD, "--json").err
    assert shell("up").err.startswith(began)
    assert began not in shell("run", CHAD).err


@pytest.mark.parametrize("standing", [False, True])
def test_a_deployment_that_dies_under_a_run_is_noticed(shell: Shell, standing: bool) -> None:
    if standing:
        shell("up")
    shell.deployments.lost = True
    launch, said = shell("run", CHAD, "--json").lines()
    run = launch["launch"]["run_id"]
    assert said["error"]["kind"] == "unreachable"
    assert f"nobody works on run {run}" in said["error"]["message"]
    assert said["error"]["next"] == ("podium up" if standing else f"podium run --continue {run}")


ASK = '[[worker]]\nname = "ask"\nadapter = "person"\n'

RAISING = """
import podium

class Policy:
    spec = podium.PolicySpec(name="python:raising_policy:Policy")

    def decide(self, view):
        raise ValueError("boom")
"""


def test_a_policy_that_raises_is_told_with_its_line_and_how_it_is_loaded_again(
    shell: Shell, tmp_path: Path
) -> None:
    (tmp_path / "raising_policy.py").write_text(RAISING)
    pool = tmp_path / "pool.toml"
    pool.write_text('[pool]\npolicy = "python:raising_policy:Policy"\n' + ASK)
    launch, said = shell("run", "--pool", str(pool), CHAD, "--json").lines()
    run = launch["launch"]["run_id"]
    assert "the policy raised ValueError: boom (at raising_policy.py:8)" in said["error"]["message"]
    assert "podium down, podium up" in said["error"]["hint"]
    assert said["error"]["next"] == f"podium runs resume {run}"


def test_flags_environment_and_file_configure(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "podium.toml").write_text("shards = 2\n[budget]\nrounds = 4\n")
    shell.environment["PODIUM_LEASE_S"] = "5"
    rows = shell("config", "show", "--nats", "nats://x", "--json").json()["rows"]
    found = {row["key"]: (row["value"], row["origin"]) for row in rows}
    assert found["shards"] == (2, str(tmp_path / "podium.toml"))
    assert found["lease_s"] == (5.0, "PODIUM_LEASE_S")
    assert found["nats.url"] == ("nats://x", "flag")
    assert found["durability"] == ("process", "default")
    shell.environment["PODIUM_LEASE"] = "5"
    assert "unknown field `lease`" in shell("runs").err


def test_doctor_names_the_strongest_isolation_of_code(shell: Shell) -> None:
    from actors.workers import isolation

    offered = isolation()
    (row,) = [row for row in shell("doctor", "--json").json()["rows"] if row["check"] == "sandbox"]
    assert row["found"].startswith("strongest isolation here: ")
    for layer in offered.layers or (offered.reason,):
        assert layer in row["found"]
    assert (row["state"] == "ok") == (offered.level == "namespaces")


def test_doctor_shows_what_was_set_aside(shell: Shell) -> None:
    run = shell.begin()
    before = shell("doctor", "--json").json()
    assert {"check": "set aside", "state": "ok", "found": "nothing", "hint": ""} in before["rows"]
    stranger = Signal(id="s", run=subjects.run_id(bytes(8)), kind="cancel", by="a stranger")

    async def post() -> None:
        from replay.memory_log import MemoryLog

        log = MemoryLog(shell.deployments.store)
        await log.post(run, encode(stranger))
        await log.post(run, b"\x00no message")

    import asyncio

    asyncio.run(post())
    after = shell("doctor", "--json").json()
    (row,) = [row for row in after["rows"] if row["check"] == "set aside"]
    assert (row["state"], row["found"]) == ("warning", f"2 in run {run}")
    (shown,) = shell("runs", "show", run, "--json").json()["rows"]
    assert shown["aside"] == 2


def test_doctor_names_a_run_whose_log_was_cut(shell: Shell) -> None:
    import asyncio

    run, store = shell.begin(), shell.deployments.store
    assert asyncio.run(Scrubber(MemoryLog(store), shell.deployments.ledger).scrub()) == []
    sound = shell("doctor", "--json").json()
    (row,) = [row for row in sound["rows"] if row["check"] == "logs"]
    assert (row["state"], row["found"]) == ("ok", "none is cut or broken")
    del store.messages[run, "c"][1:]
    said = shell("doctor", "--json")
    assert said.code == 1
    (row,) = [row for row in said.json()["rows"] if row["check"] == "logs"]
    assert row["state"] == "failed"
    assert row["found"].startswith(f"run {run} is cut: the log ends with commit 1; it once had")


def test_no_password_of_a_url_is_shown(shell: Shell) -> None:
    url = "nats://anna:s3cret@one:4222,t0ken@two:4222"
    shell.deployments.up_record = Record(url=url)
    for command in ("doctor", "status", "config show"):
        for form in ((), ("--json",)):
            said = shell(*command.split(), "--nats", url, *form)
            assert not {"s3cret", "t0ken"} & set(re.findall(r"\w+", said.out + said.err))
    rows = shell("config", "show", "--nats", url, "--json").json()["rows"]
    assert {"nats://one:4222,two:4222"} == {r["value"] for r in rows if r["key"] == "nats.url"}


def test_worker_check_ends_with_2(shell: Shell, tmp_path: Path) -> None:
    pool = tmp_path / "pool.toml"
    pool.write_text('[[worker]]\nname = "a"\nadapter = "telepathy"\n')
    said = shell("worker", "check", str(pool))
    assert said.code == 2
    assert "there is no adapter 'telepathy'" in said.out
    assert "a: Known are: function:module:name" in said.err


def test_json_holds_nothing_that_steers_a_terminal() -> None:
    out = io.StringIO()
    output = Output(True, World(stdout=out, stderr=io.StringIO()))
    evil = "\x1b[2J\x9b31m\u202e\u2066\x7f ok"
    output.read([{"text": evil}], counts={})
    assert out.getvalue().rstrip("\n").isprintable()
    assert msgspec.json.decode(out.getvalue())["rows"] == [{"text": evil}], "and loses nothing"


def test_errors_are_cleaned_too() -> None:
    err = io.StringIO()
    output = Output(False, World(stdout=io.StringIO(), stderr=err))
    output.error(Busy("full of \x1b[2J[bold]x[/]", hint="wait\x07"))
    assert err.getvalue() == "error: full of [2J[bold]x[/]\n  try: wait\n"


@pytest.mark.parametrize(
    ("stream", "environment", "as_json", "said"),
    [
        (io.StringIO, {}, False, "3 of 20 runs\n8 of 20 runs\n"),
        (io.StringIO, {}, True, ""),
        (Terminal, {"TERM": "dumb"}, False, "3 of 20 runs\n8 of 20 runs\n"),
        (
            Terminal,
            {"TERM": "xterm"},
            False,
            "".join(f"\r\x1b[2K{n} of 20 runs" for n in (0, 1, 3, 3, 8)) + "\r\x1b[2K",
        ),
    ],
)
def test_many_are_counted_in_place_or_by_tenths(
    stream: type[io.StringIO], environment: dict[str, str], as_json: bool, said: str
) -> None:
    err = stream()
    tell = Output(as_json, World(stderr=err, environment=environment)).counting(20, "runs")
    for done in (0, 1, 3, 3, 8, 20):
        tell(done)
    assert err.getvalue() == said


def test_doctor_says_what_is_taken_for_a_secret(shell: Shell) -> None:
    def found() -> dict[str, dict[str, str]]:
        rows = shell("doctor", "--json").json()["rows"]
        return {row["check"]: row for row in rows if row["check"].startswith("secrets")}

    assert found()["secrets"]["state"] == "ok"
    config, file = shell.folder / "podium.toml", shell.folder / "mine.env"
    config.write_text(f'[redact]\nnames = ["pin"]\ndefaults = false\n[secrets]\npath = "{file}"\n')
    assert found()["secrets"]["state"] == "warning"
    assert "1 name and 0 patterns of your own" in found()["secrets"]["found"]
    assert "is not there" in found()["secrets path"]["found"]
    pool = shell.folder / "pool.toml"
    pool.write_text("[redact]\npatterns = ['a+']\n")
    rows = shell("doctor", "--json", "--pool", str(pool)).json()["rows"]
    assert any("1 name and 1 pattern of your own" in row["found"] for row in rows)
    file.write_text("DB=x")
    file.chmod(0o644)
    assert "chmod 600" in found()["secrets path"]["hint"]
    file.chmod(0o600)
    assert found()["secrets path"]["state"] == "ok"
    config.write_text("[redact]\npatterns = ['(']\n")
    said = shell("doctor")
    assert said.code == 2
    assert "redact.patterns[0]" in said.err


def test_a_task_is_stored_without_its_secrets(shell: Shell) -> None:
    key = "sk-proj-" + "PLANTED0aBcDeFgHiJkLmNoP"
    run = shell.begin(f"How large is Chad? {key}")
    said = shell("runs", "show", run, "--content")
    assert "[redacted:openai_key]" in said.out
    assert key not in said.out


@pytest.mark.parametrize(
    ("hint", "command"),
    [
        ("start one with `podium up`, or name a running one with --nats", "podium up"),
        ("`podium export RUN` writes one", "podium export RUN"),
        ("list them: podium runs", "podium runs"),
        ("podium runs extend x --rounds 4   (or --calls)", "podium runs extend x --rounds 4"),
        ("name it: podium reproduce x/1-0 --pool FILE", "podium reproduce x/1-0 --pool FILE"),
        ("ask whoever runs podium up there", None),
    ],
)
def test_what_to_do_next_can_be_typed(shell: Shell, hint: str, command: str | None) -> None:
    shell.deployments.failure = Unreachable("nobody answers", hint=hint)
    assert shell("runs", "--json").json()["error"]["next"] == command


def test_no_url_of_the_configuration_shows_its_password(shell: Shell, tmp_path: Path) -> None:
    place = "file://ada:s3cret@localhost/nowhere"
    (tmp_path / "podium.toml").write_text(
        f'[trace]\nendpoint = "http://ada:s3cret@h:4318"\n[archive]\nurl = "{place}"\n'
    )
    said = shell("config", "show")
    assert "http://h:4318" in said.out
    assert "file://localhost/nowhere" in said.out
    said = shell("archive", "--all-ended", "--dry-run")
    assert "to file://localhost/nowhere" in said.out
    assert "s3cret" not in said.out + said.err
    (tmp_path / "podium.toml").write_text('[archive]\nurl = "/data/a@b/c"\n')
    assert "/data/a@b/c" in shell("config", "show").out
