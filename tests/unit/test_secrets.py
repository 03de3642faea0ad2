"""A worker's secrets: where they come from, who may have them, and that none leaves."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from actors.logs import RedactingFormatter
from actors.ports import Attempt, Outcome
from actors.secrets import Secrets, ambient, find, usable
from actors.work import presentable, work_on
from protocol.actions import WorkerSpec
from protocol.errors import Denied, InvalidData
from protocol.limits import MAX_DETAIL_CHARS
from protocol.redaction import Redactor

VALUE = "v4lue-of-it"
SPEC = WorkerSpec(name="tool", secrets=("DB", "LOST"), options={"url": "db://${secret:DB}@h"})


def attempt(**arguments: Any) -> Attempt:
    return Attempt(run="r", call="1-0", attempt=1, arguments=arguments, timeout_s=5)


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> Secrets:
    monkeypatch.setenv("PODIUM_SECRET_DB", VALUE)
    monkeypatch.setenv("PODIUM_SECRET_OTHER", "another-one")
    return Secrets.of(SPEC, Redactor())


class Says:
    """An adapter that gives what it is told to, or raises it."""

    def __init__(self, value: Any) -> None:
        self.spec, self.value = SPEC, value
        self.given: Attempt | None = None

    async def run(self, attempt: Attempt) -> Outcome:
        self.given = attempt
        if isinstance(self.value, Exception):
            raise self.value
        return Outcome(value=self.value)

    async def close(self) -> None: ...


async def said(secrets: Secrets, value: Any, **arguments: Any) -> tuple[Outcome, Says]:
    adapter = Says(value)
    outcome = await work_on(attempt(**arguments), adapter, secrets)
    outcome, _ = await presentable(outcome, SPEC, secrets.redactor)
    return outcome, adapter


def test_declared_references_get_their_values_and_values_their_references(
    secrets: Secrets,
) -> None:
    outcome, adapter = asyncio.run(
        said(secrets, {"said": f"<{VALUE}>"}, a=[f"x ${{secret:DB}} {1}"], b=1)
    )
    assert adapter.given is not None
    assert adapter.given.arguments == {"a": [f"x {VALUE} 1"], "b": 1}
    assert outcome.value == {"said": "<${secret:DB}>"}
    assert secrets.options(SPEC).options == {"url": f"db://{VALUE}@h"}


@pytest.mark.parametrize(
    ("name", "status", "fault", "cure"),
    [
        ("OTHER", "PARSE_ERR", "policy", 'add secrets = ["OTHER"]'),
        ("LOST", "EXEC_ERR", "infrastructure", "set PODIUM_SECRET_LOST"),
        ("no name", "PARSE_ERR", "policy", "letters, digits and _"),
    ],
)
def test_what_cannot_be_resolved_is_an_observation_with_the_cure(
    secrets: Secrets, name: str, status: str, fault: str, cure: str
) -> None:
    outcome, adapter = asyncio.run(said(secrets, 1, a=f"${{secret:{name}}}"))
    assert (outcome.status, outcome.fault) == (status, fault)
    assert cure in outcome.value
    assert adapter.given is None, "the adapter is not run"


def test_options_that_cannot_be_resolved_stop_the_worker() -> None:
    with pytest.raises(Denied, match="does not declare"):
        Secrets().options(SPEC)


def test_a_secret_that_is_not_declared_may_not_leave_either(secrets: Secrets) -> None:
    outcome, _ = asyncio.run(said(secrets, ["another-one"]))
    assert outcome.value == ["${secret:OTHER}"]


def test_an_error_is_redacted_before_it_is_cut(secrets: Secrets) -> None:
    half = "x" * (MAX_DETAIL_CHARS // 2 - 45) + VALUE + "y" * MAX_DETAIL_CHARS
    for filler in range(30):
        error = ValueError("z" * filler + half)
        outcome, _ = asyncio.run(said(secrets, error))
        assert VALUE[:4] not in outcome.value


def test_names_and_values_that_are_no_json(secrets: Secrets) -> None:
    outcome, _ = asyncio.run(said(secrets, {VALUE: {1, 2}.__iter__()}))
    assert outcome.status == "EXEC_ERR"
    assert VALUE not in outcome.value


def test_a_large_value_is_looked_through_beside_the_loop(secrets: Secrets) -> None:
    outcome, _ = asyncio.run(said(secrets, ["x" * 100] * 20_000 + [VALUE]))
    assert outcome.value[-1] == "${secret:DB}"


def test_values_come_from_the_environment_then_a_folder_or_a_file(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file.env"
    folder.mkdir()
    (folder / "DB").write_text("from-folder\n")
    file.write_text("# mine\nexport DB='from file'\nOTHER=a=b \n")
    assert find("DB", str(folder), {}) == "from-folder"
    assert find("DB", str(file), {}) == "from file"
    assert find("OTHER", str(file), {}) == "a=b"
    assert find("DB", str(folder), {"PODIUM_SECRET_DB": "from-environment"}) == "from-environment"
    assert find("NONE", str(folder), {}) is None
    assert find("NONE", str(tmp_path / "nowhere"), {}) is None
    (folder / "BYTES").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidData, match="BYTES can't be read"):
        find("BYTES", str(folder), {})


def test_a_secret_must_be_long_enough_to_be_found_again() -> None:
    with pytest.raises(InvalidData, match="has 3 characters"):
        usable("DB", "abc")


def test_ambient_secrets_are_those_with_a_name() -> None:
    variables = {"PODIUM_SECRET_A": "one", "PODIUM_SECRET_": "x", "PODIUM_SECRET_1": "x", "A": "x"}
    assert ambient(variables) == {"${secret:A}": "one"}


def test_what_is_logged_has_no_secret_either(tmp_path: Path) -> None:
    formatter = RedactingFormatter("%(message)s", Redactor(values={"${secret:DB}": VALUE}))
    try:
        raise ValueError(f"with {VALUE} at https://u:{VALUE}x@h")
    except ValueError as error:
        record = logging.LogRecord("x", 40, __file__, 1, "call %s", (VALUE,), None)
        record.exc_info = (type(error), error, error.__traceback__)
    said = formatter.format(record)
    assert said.startswith("call ${secret:DB}\nTraceback")
    assert VALUE not in said
