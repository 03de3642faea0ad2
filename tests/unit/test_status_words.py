"""What `podium status` says of actors."""

from typing import Any

import pytest

from podium.status_words import busy, did


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"kind": "conductor", "runs": 3, "resting": 1}, "3 runs at work, 1 of them waiting for"),
        ({"kind": "conductor", "runs": 1, "resting": 0, "pid": 7}, "1 run at work, process 7"),
        ({"kind": "worker", "busy": 0, "slots": 16, "pid": 7}, "0 of 16 slots busy, process 7"),
        ({"kind": "model", "version": "000001", "asked": 2}, "version 000001, 2 questions at work"),
        (
            {"kind": "model", "version": "", "asked": 0, "refused": "it is cut"},
            "no version, 0 questions at work, refused: it is cut",
        ),
        ({"kind": "other", "actor": "o", "odd": 4}, "4 odd"),
        ({"kind": "worker", "busy": "x"}, "x busy"),
        ({}, ""),
    ],
)
def test_what_an_actor_is_at(said: dict[str, Any], words: str) -> None:
    assert busy(said).startswith(words)


def test_what_an_actor_has_counted() -> None:
    assert did({"counts": {"handed_back": 2, "OK": 3}}) == "3 OK, 2 handed back to others"
    assert did({}) == did({"counts": 3}) == ""
