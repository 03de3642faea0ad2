"""The bill of a run sums to what the endpoint itself counted."""

from pathlib import Path

import pytest

from tests.e2e.memory_host import Shell
from tests.endpoint import Endpoint

POOL = """
[policy]
name = "openai:m"
price_in = 2
price_out = 4

[[worker]]
name = "sage"
adapter = "openai"
description = "Knows everything."
[worker.options]
model = "n"
price_in = 1
price_out = 3
"""

USAGE = [(100, 10), (20, 5), (30, 6), (200, 20)]


def test_it_sums_to_what_the_endpoint_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = Shell(tmp_path, USER="tester")
    (tmp_path / "pool.toml").write_text(POOL)
    with Endpoint() as endpoint:
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
        monkeypatch.setenv("OPENAI_API_KEY", endpoint.key)
        ask = '{"subtask": "say"}'
        endpoint.say(None, calls=[("a", "sage", ask), ("b", "sage", ask)], usage=USAGE[0])
        for usage in USAGE[1:]:
            endpoint.say("so it is", usage=usage)
        said = shell("run", "--pool", str(tmp_path / "pool.toml"), "--json", "What is it?")
        assert said.code == 0
        assert len(endpoint.requests) == len(USAGE)
    run = said.lines()[-1]["done"]["run_id"]
    *lines, total = shell("runs", "bill", run, "--json").json()["rows"]
    assert [(line["who"], line["times"]) for line in lines] == [("(policy)", 2), ("sage", 2)]
    assert total["input_tokens"] == sum(read for read, _ in USAGE)
    assert total["output_tokens"] == sum(written for _, written in USAGE)
    assert total["tokens"] == total["input_tokens"] + total["output_tokens"]
    dollars = [300 * 2 + 30 * 4, 50 * 1 + 11 * 3]
    assert [line["cost_usd"] for line in lines] == [each / 1e6 for each in dollars]
    assert total["cost_usd"] == sum(dollars) / 1e6
    shown = shell("runs", "bill", run).out
    assert "350" in shown
    assert "total" in shown
