"""Tokens, addresses, and pools that share a deployment: what `podium serve` checks first."""

import sys
from pathlib import Path
from typing import Final

import msgspec
import pytest

from podium.config import BudgetTable
from podium.poolfile import LoadedPool
from podium.serve import mcp
from podium.serve.models import Model, by_name, together
from podium.serve.server import TOKEN_ENV, check_open, installed, listen, local, tokens_from, url_of
from protocol.actions import Pool, WorkerSpec
from protocol.budgets import Budget
from protocol.decisions import PolicySpec
from protocol.errors import Conflict, InvalidData, NotFound, PodiumError, Usage
from protocol.secret_forms import Redaction

ONE: Final = "one-token-of-these"
TWO: Final = "two-tokens-of-these"


def pool(name: str, *workers: WorkerSpec, policy: str = "rules") -> LoadedPool:
    redact = Redaction(names=(f"{name}_pin",))
    return LoadedPool(Path(f"{name}.toml"), name, Pool(workers), policy, BudgetTable(), redact)


def test_tokens_come_from_variable_and_file(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# of the desk\n{TWO}\n\n  {ONE}\n")
    assert tokens_from({}) == ()
    assert tokens_from({TOKEN_ENV: f" {ONE} \n{TWO}"}) == (ONE, TWO)
    assert tokens_from({TOKEN_ENV: ONE}, file=str(file)) == (ONE, TWO)
    assert tokens_from({TOKEN_ENV: ONE, "MINE": TWO}, "MINE") == (TWO,)


@pytest.mark.parametrize(
    ("environment", "name", "file", "raised"),
    [
        ({}, "MINE", "", Usage),
        ({"MINE": " "}, "MINE", "", InvalidData),
        ({TOKEN_ENV: ""}, "", "", InvalidData),
        ({TOKEN_ENV: "short"}, "", "", InvalidData),
        ({TOKEN_ENV: "ü" * 20}, "", "", InvalidData),
        ({}, "", "nowhere", NotFound),
    ],
)
def test_a_wrong_token_is_named_by_its_place_and_not_said(
    environment: dict[str, str], name: str, file: str, raised: type[PodiumError]
) -> None:
    with pytest.raises(raised) as caught:
        tokens_from(environment, name, file)
    assert "short" not in caught.value.message
    assert caught.value.hint


def test_others_are_let_in_only_with_a_token() -> None:
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert local(host)
        check_open(host, ())
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", ""):
        assert not local(host)
        check_open(host, (ONE,))
        with pytest.raises(Usage, match="no token"):
            check_open(host, ())


def test_an_address_in_use_is_a_conflict() -> None:
    with listen("127.0.0.1", 0) as there:
        port = there.getsockname()[1]
        assert url_of(there) == f"http://127.0.0.1:{port}/v1"
        with pytest.raises(Conflict, match=str(port)):
            listen("127.0.0.1", port)


def test_pools_share_a_deployment() -> None:
    tool, other = WorkerSpec(name="tool"), WorkerSpec(name="other")
    both = together([pool("a", tool), pool("b", other, tool, policy="python:m:n")])
    assert both.name == "a+b"
    assert both.pool == Pool((tool, other))
    assert both.policies == ("python:m:n", "rules")
    assert both.redact.names == ("a_pin", "b_pin")


def test_two_workers_of_one_name_share_none() -> None:
    tool = WorkerSpec(name="tool")
    slow = msgspec.structs.replace(tool, timeout_ms=1)
    with pytest.raises(Usage, match="'a' and 'b' have different workers 'tool'"):
        together([pool("a", tool), pool("b", slow)])


def test_a_missing_package_is_named_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    installed()
    mcp.need()
    for package in ("uvicorn", "mcp"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Usage, match="uvicorn") as caught:
        installed()
    assert "podium[serve]" in caught.value.hint
    with pytest.raises(Usage, match="mcp") as caught:
        mcp.need()
    assert "podium[mcp]" in caught.value.hint


def test_two_models_of_one_name_are_refused() -> None:
    model = Model("a", Pool(()), PolicySpec(name="rules"), Budget())
    with pytest.raises(Usage, match="'a'"):
        by_name([model, model])
