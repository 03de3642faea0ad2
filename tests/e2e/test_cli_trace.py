"""`podium trace export` as a person types it: shown, written, sent; twice the same."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.traces import trace_id
from tests.collector import Collector
from tests.e2e.memory_host import Shell

QUESTION = "Which is larger by population, Germany or France?"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, USER="tester")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as found:
        yield found


def test_the_tree_is_shown_without_anything_that_was_written(shell: Shell) -> None:
    run = shell.begin(QUESTION)
    said = shell("trace", "export", run[:6])
    lines = said.out.splitlines()
    assert lines[0].startswith("invoke_workflow conductor  ")
    assert lines[1].startswith("  plan conductor  ")
    assert sum(line.startswith("  execute_tool ") for line in lines) >= 2
    assert f"podium trace export {run} --otlp" in said.err
    rows = shell("trace", "export", run, "--json").json()["rows"]
    assert "Germany" not in json.dumps(rows)
    assert {row["trace_id"] for row in rows} == {trace_id(run)}
    content = shell("trace", "export", run, "--json", "--content").json()["rows"]
    assert "Germany" in json.dumps(content)


def test_a_launch_names_the_trace(shell: Shell) -> None:
    launch = shell("run", "--json", QUESTION).lines()[0]["launch"]
    assert launch["trace_id"] == trace_id(launch["run_id"])


def test_a_file_is_the_same_each_time(shell: Shell, tmp_path: Path) -> None:
    run = shell.begin(QUESTION)
    files = [tmp_path / "one.json", tmp_path / "other.json"]
    for file in files:
        said = shell("trace", "export", run, "--children", "--file", str(file))
        assert (said.code, f"written to {file}" in said.err) == (0, True)
    assert files[0].read_bytes() == files[1].read_bytes()
    (resource,) = json.loads(files[0].read_bytes())["resourceSpans"]
    (scope,) = resource["scopeSpans"]
    root = scope["spans"][0]
    assert (root["traceId"], "parentSpanId" in root) == (trace_id(run), False)
    assert root["startTimeUnixNano"].isdecimal()
    (name,) = resource["resource"]["attributes"]
    assert name == {"key": "service.name", "value": {"stringValue": "podium"}}


@pytest.mark.parametrize("path", ["", "/", "/v1/traces"])
def test_it_is_sent_to_a_backend(shell: Shell, collector: Collector, path: str) -> None:
    run = shell.begin(QUESTION)
    said = shell("trace", "export", run, "--otlp", collector.url + path, "--json")
    assert said.code == 0
    rows = said.json()["rows"]
    assert [(span.id, span.parent, span.name) for span in collector.spans] == [
        (row["span_id"], row["parent_id"] or "", row["name"]) for row in rows
    ]
    assert f"{len(rows)} spans" in said.err


def test_the_standard_variable_says_where(
    shell: Shell, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shell.begin(QUESTION)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    shell.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
    assert shell("trace", "export", run).code == 0
    assert {span.resource["service.name"] for span in collector.spans} == {"mine"}


def test_a_backend_that_refuses_is_unreachable(shell: Shell, collector: Collector) -> None:
    run = shell.begin(QUESTION)
    collector.refuse = 400
    said = shell("trace", "export", run, "--otlp", collector.url, "--json")
    assert (said.code, said.json()["error"]["kind"]) == (5, "unreachable")


def test_a_run_that_goes_on_says_so(shell: Shell) -> None:
    shell("run", "--rounds", "0", "--on-limit", "pause", "--json", QUESTION)
    run = shell("runs", "--json", "--status", "paused").json()["rows"][0]["run"]
    said = shell("trace", "export", run)
    assert said.code == 0
    assert f"run {run} goes on" in said.err
