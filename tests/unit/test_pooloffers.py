"""Pool files whose workers are what a server offers: one table for each tool, or for all."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Final

import pytest

from podium import poolcheck, poolfile
from podium.pooloffers import fitting
from protocol.errors import PodiumError, Usage
from protocol.registry import EMPTY, change, folded, verdict

SERVER: Final = Path(__file__).resolve().parent.parent / "old_mcp_server.py"


def table(name: str, adapter: str, *fields: str, **options: object) -> str:
    """A ``[[worker]]`` of the server that starts at once; it offers do, go and leave."""
    said = {"command": sys.executable, "args": [str(SERVER)]} | options
    lines = [f"{key} = {_toml(value)}" for key, value in said.items()]
    head = ["[[worker]]", f'name = "{name}"', f'adapter = "{adapter}"', *fields]
    return "\n".join([*head, "[worker.options]", *lines, ""])


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)


def write(folder: Path, *tables: str) -> Path:
    path = folder / "pool.toml"
    path.write_text("\n".join(tables))
    return path


def test_a_table_without_a_tool_is_a_worker_for_each(tmp_path: Path) -> None:
    path = write(tmp_path, table("db", "mcp", "timeout_s = 5", "attempts = 1"))
    workers = poolfile.load(path).pool.workers
    assert {spec.name: spec.adapter for spec in workers} == {
        "db_do": "mcp:do",
        "db_go": "mcp:go",
        "db_leave": "mcp:leave",
    }
    assert {(spec.timeout_ms, spec.attempts, spec.host) for spec in workers} == {(5_000, 1, "db")}
    assert workers[0].parameters["properties"] == {"what": {"type": "string"}}
    assert workers[0].options == {"command": sys.executable, "args": [str(SERVER)]}


def test_only_a_table_that_takes_all_of_a_server_is_one_for_what_it_will_offer(
    tmp_path: Path,
) -> None:
    person = '[[worker]]\nname = "boss"\nadapter = "person"\n'
    some = table("some", "mcp", 'only = ["go"]')
    path = write(tmp_path, person, table("db", "mcp"), some, table("mover", "mcp:go"))
    loaded = poolfile.load(path)
    assert loaded.tables == dict.fromkeys(["db_do", "db_go", "db_leave"], "db")
    said = change(EMPTY, loaded.pool, at=1, tables=loaded.tables)
    assert said is not None
    registry = folded(EMPTY, [said])
    registry = folded(registry, [verdict(registry, "", at=2)])
    assert change(registry, loaded.pool, at=3, tables=loaded.tables) is None


def test_only_some_of_them(tmp_path: Path) -> None:
    path = write(tmp_path, table("db", "mcp", 'only = ["go", "do"]'))
    assert [spec.name for spec in poolfile.load(path).pool.workers] == ["db_do", "db_go"]


def test_one_tool_under_a_name_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path, table("mover", "mcp:go", 'description = "Moves."'))
    (spec,) = poolfile.load(path).pool.workers
    assert (spec.name, spec.adapter, spec.description) == ("mover", "mcp:go", "Moves.")


def test_those_with_the_same_options_share_a_host(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        table("mover", "mcp:go"),
        table("db", "mcp", 'only = ["do"]'),
        table("other", "mcp:go", env={"TOKEN": "another"}),
        table("apart", "mcp:go", 'host = "far"'),
    )
    hosts = {spec.name: spec.host for spec in poolfile.load(path).pool.workers}
    assert hosts == {"mover": "mover", "db_do": "mover", "other": "other", "apart": "far"}


SHOP: Final = {
    "openapi": "3.1.0",
    "info": {"title": "Shop", "version": "1"},
    "servers": [{"url": "http://127.0.0.1:9"}],
    "paths": {
        "/things": {
            "get": {"operationId": "list", "responses": {"200": {"description": "ok"}}},
            "post": {"responses": {"201": {"description": "ok"}}},
        }
    },
}


@pytest.mark.parametrize(
    ("adapter", "field", "option", "addresses"),
    [
        ("openapi", "", "", ["openapi:list", "openapi:POST /things"]),
        ("openapi", 'only = ["list"]', "", ["openapi:list"]),
        ("openapi", 'only = ["POST /things"]', "", ["openapi:POST /things"]),
        ("openapi", "", 'only = ["POST /things"]', ["openapi:POST /things"]),
        ("openapi:POST /things", "", "", ["openapi:POST /things"]),
    ],
)
def test_so_are_the_operations_of_a_document(
    tmp_path: Path, adapter: str, field: str, option: str, addresses: list[str]
) -> None:
    (tmp_path / "shop.json").write_text(json.dumps(SHOP))
    head = f'[[worker]]\nname = "shop"\nadapter = "{adapter}"\n{field}\n'
    where = f'[worker.options]\ndocument = "{tmp_path / "shop.json"}"\n{option}\n'
    workers = poolfile.load(write(tmp_path, head + where)).pool.workers
    assert [spec.adapter for spec in workers] == addresses
    assert all(spec.name.startswith("shop") for spec in workers)
    assert {spec.host for spec in workers} == {""}


def test_a_secret_reaches_the_server_and_not_the_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODIUM_SECRET_DB", "tok-123456789")
    own = 'import os, sys; sys.exit("got " + os.environ["TOKEN"])'
    dies = {"args": ["-c", own], "env": {"TOKEN": "${secret:DB}"}}
    path = write(tmp_path, table("db", "mcp", 'secrets = ["DB"]', **dies))
    with pytest.raises(Usage, match="got") as raised:
        poolfile.load(path)
    assert "tok-123456789" not in raised.value.message + raised.value.hint
    path = write(tmp_path, table("db", "mcp", 'secrets = ["DB"]', env={"TOKEN": "${secret:DB}"}))
    assert poolfile.load(path).pool.workers[0].options["env"] == {"TOKEN": "${secret:DB}"}


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text("DB=tok-123456789\n")
    path = write(tmp_path, table("db", "mcp", 'secrets = ["DB"]', env={"TOKEN": "${secret:DB}"}))
    assert len(poolfile.load(path, str(tmp_path / "secrets")).pool.workers) == 3
    with pytest.raises(Usage, match="the secret DB, which has no value"):
        poolfile.load(path)


@pytest.mark.parametrize(
    ("tables", "says", "cure"),
    [
        ([table("db", "mcp:fly")], "offers no 'fly'", "do, go, leave"),
        ([table("db", "mcp", 'only = ["fly"]')], "offers no 'fly'", "do, go, leave"),
        ([table("db", "mcp:go", 'only = ["go"]')], "'mcp:go' is one tool", "Leave only out"),
        ([table("db", "mcp", 'description = "x"')], "description can't be", "mcp:TOOL"),
        ([table("db", "mcp", "parameters = {}")], "parameters can't be", "mcp:TOOL"),
        (
            [table("db_go", "mcp:go"), table("db", "mcp")],
            "mcp:go would be the worker 'db_go', which is there",
            "only",
        ),
        ([table("db", "mcp", 'host = "a b"')], "'a b' is no name", "letter"),
        ([table("db", "mcp", command="no-such-command")], "No such file", "Install it"),
        ([table("db", "mcp", args=["-c", "import nosuch"])], "No module named", "by hand"),
        ([table("db", "mcp", env={"A": "${secret:DB}"})], "does not declare", "secrets"),
        (['[[worker]]\nname = "a"\nadapter = "python"\nonly = ["b"]'], "only goes with", "mcp"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, tables: list[str], says: str, cure: str) -> None:
    with pytest.raises(PodiumError) as raised:
        poolfile.load(write(tmp_path, *tables))
    assert "pool.toml: the worker" in raised.value.message
    assert says in raised.value.message
    assert cure in raised.value.hint


def test_the_sdk_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(Usage, match="not installed") as raised:
        poolfile.load(write(tmp_path, table("db", "mcp")))
    assert raised.value.hint == "pip install 'podium[mcp]'"


@pytest.mark.parametrize(
    ("part", "name"),
    [("a.b/c", "db_a_b_c"), ("ä", "db__"), ("x" * 80, "db_" + "x" * 61), ("a-B_1", "db_a-B_1")],
)
def test_names_are_made_to_fit(part: str, name: str) -> None:
    assert fitting("db", part) == name


def test_check_tries_servers(tmp_path: Path) -> None:
    path = write(tmp_path, table("db", "mcp"), table("gone", "mcp:x", command="no-such-command"))
    found = {each.worker: each for each in asyncio.run(poolcheck.check(path))}
    assert {name: each.state for name, each in found.items()} == {
        "db_do": "ok",
        "db_go": "ok",
        "db_leave": "ok",
        "gone": "failed",
    }
    assert found["db_go"].found == "offered by its server, 1 parameter"
    assert "no-such-command" in found["gone"].found


def test_doctor_asks_servers_of_the_file_and_of_what_stands(tmp_path: Path) -> None:
    path = write(tmp_path, table("db", "mcp"), table("gone", "mcp:x", command="no-such-command"))
    states = {each.worker: each.state for each in poolcheck.servers(path, None, "")}
    assert states == {"db": "ok", "gone": "failed"}
    pool = poolfile.load(write(tmp_path, table("db", "mcp"))).pool
    found = poolcheck.servers(None, pool, "")
    assert [each.state for each in found] == ["ok"] * 3
