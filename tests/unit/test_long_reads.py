"""Reads of many pages, over the simulated server."""

import asyncio
import contextlib
from collections import Counter
from typing import Any

import pytest

from protocol import subjects
from protocol.actions import Report
from protocol.codec import encode
from replay.broker import READ_BATCH, Unanswered
from replay.jetstream_log import JetStreamLog
from tests.places import SimPlace, new_run


async def test_a_read_that_is_not_answered_midway_goes_on_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        broker = await SimPlace(stack).broker()
        log, run, count = JetStreamLog(broker), new_run(), READ_BATCH + 100
        reports = [
            Report(run=run, call=f"1-{number}", attempt=1, status="OK") for number in range(count)
        ]
        await asyncio.gather(*(log.post(run, encode(each)) for each in reports))
        page, asked = broker.page, Counter[int]()

        async def lossy(stream: str, subject: str, after: int, *rest: Any) -> Any:
            asked[after] += subject == subjects.inbox(run)
            if after and asked[after] == 1:
                raise Unanswered("no answer in time")
            return await page(stream, subject, after, *rest)

        monkeypatch.setattr(broker, "page", lossy)
        read = [entry.message for entry in (await log.read(run)).inbox]
        assert len(read) == count, "each once, in whatever order they came in"
        assert all(each in read for each in reports)
        assert sorted(asked.values()) == [1, 2]
