"""What falls short of a durability is named, with the line that mends it; more is fine."""

import msgspec
import pytest

from protocol.errors import Denied, Usage
from replay.durability import (
    LEVELS,
    Durability,
    ServerSettings,
    Settings,
    StreamSettings,
    at_least,
    check,
    given,
    require,
)
from replay.streams import definitions

ALWAYS = ServerSettings("a", "2.15.1", sync_always=True, sync_interval_s=120)
LATER = ServerSettings("b", "2.15.1", sync_always=False, sync_interval_s=120)
LOG = StreamSettings("LOG-0", discard="new")
LOG_3 = StreamSettings("LOG-0", num_replicas=3, discard="new")


def cluster(*servers: ServerSettings, stream: StreamSettings = LOG_3) -> Settings:
    return Settings(servers, (stream,), expected=3)


def named(name: str, always: bool = True) -> ServerSettings:
    return ServerSettings(name, "2.15.1", sync_always=always, sync_interval_s=120)


SITE = cluster(named("a"), named("b"), named("c"))


@pytest.mark.parametrize(
    ("settings", "level"),
    [
        (Settings((LATER,), (LOG,)), "process"),
        (Settings((ALWAYS,), (LOG,)), "power"),
        (SITE, "site"),
        (cluster(named("a"), named("b"), named("c"), stream=LOG), "power"),
        (cluster(named("a"), named("b", always=False), named("c")), "process"),
    ],
)
def test_a_deployment_gives_its_level_and_all_below_it_and_none_above(
    settings: Settings, level: Durability
) -> None:
    assert given(settings) == level
    for wanted in LEVELS:
        assert (check(settings, wanted) == []) is at_least(level, wanted)


def test_a_server_that_syncs_later_is_refused_with_the_line_that_mends_it() -> None:
    (weakness,) = check(Settings((LATER,), (LOG,)), "power")
    assert weakness.where == "server b"
    assert "every 120 s" in weakness.found
    assert weakness.mend == "jetstream { sync_interval: always }"
    with pytest.raises(Usage) as refused:
        require(Settings((LATER,), (LOG,)), "power")
    assert "server b" in refused.value.message
    assert "jetstream { sync_interval: always }" in refused.value.hint


def test_each_weak_server_of_a_cluster_is_named() -> None:
    settings = cluster(named("a", always=False), named("b"), named("c", always=False))
    assert [weakness.where for weakness in check(settings, "site")] == ["server a", "server c"]


def test_a_server_that_says_nothing_is_a_weakness() -> None:
    (weakness,) = check(cluster(named("a"), named("b")), "process")
    assert "2 of 3 servers" in weakness.found
    assert given(cluster(named("a"), named("b"))) is None


def test_site_needs_three_servers_and_three_replicas() -> None:
    weaknesses = check(Settings((ALWAYS,), (LOG,)), "site")
    assert [weakness.where for weakness in weaknesses] == ["the cluster", "stream LOG-0"]
    assert weaknesses[1].mend == "nats stream edit LOG-0 --replicas=3"


@pytest.mark.parametrize(
    ("stream", "found"),
    [
        (StreamSettings("LOG-0", discard="new", storage="memory"), "storage memory"),
        (StreamSettings("LOG-0", discard="new", persist_mode="async"), "persist_mode async"),
        (StreamSettings("LOG-0"), "discard old"),
        (StreamSettings("LOG-0", discard="new", max_age=3_000_000_000), "max_age 3 s"),
    ],
)
def test_a_stream_that_can_lose_messages_is_refused_even_for_process(
    stream: StreamSettings, found: str
) -> None:
    (weakness,) = check(Settings((ALWAYS,), (stream,)), "process")
    assert weakness.where == "stream LOG-0"
    assert weakness.found.startswith(found)


def test_calls_may_be_lost_since_they_are_made_again_from_the_log() -> None:
    calls = StreamSettings("CALLS", storage="memory", max_age=1_000_000_000)
    assert check(Settings((ALWAYS,), (LOG, calls)), "power") == []
    assert [weak.where for weak in check(cluster(*SITE.servers, stream=calls), "site")] == [
        "stream CALLS"
    ]


@pytest.mark.parametrize("name", ["ORDERS", "LOG", "LOG-x", "MY-LOG-0"])
def test_streams_of_others_in_the_account_are_left_alone(name: str) -> None:
    other = StreamSettings(name, storage="memory")
    assert check(Settings((ALWAYS,), (LOG, other)), "power") == []


@pytest.mark.parametrize("wanted", LEVELS)
def test_the_streams_that_podium_makes_are_strong_enough(wanted: Durability) -> None:
    made = [msgspec.convert(each, StreamSettings) for each in definitions(shards=2, replicas=3)]
    assert check(Settings(SITE.servers, tuple(made), expected=3), wanted) == []


def test_kept_heads_may_replace_one_another() -> None:
    assert check(Settings((ALWAYS,), (StreamSettings("HEADS"),)), "power") == []


@pytest.mark.parametrize("version", ["2.13.9", "2.9.25", "unknown"])
def test_a_server_older_than_the_rules_need_is_refused(version: str) -> None:
    old = ServerSettings("a", version, sync_always=True, sync_interval_s=120)
    (weakness,) = check(Settings((old,)), "process")
    assert weakness.found == f"nats-server {version}"
    assert "2.14.0" in weakness.needed


def test_a_stronger_deployment_is_fine_and_shown() -> None:
    assert require(Settings((ALWAYS,), (LOG,)), "process") == "power (asked for process)"
    assert require(Settings((ALWAYS,), (LOG,)), "power") == "power"


@pytest.mark.parametrize("wanted", ["power", "site"])
def test_what_cannot_be_verified_is_refused_and_says_what_to_give(wanted: Durability) -> None:
    with pytest.raises(Denied) as refused:
        require(Settings(streams=(LOG,), verified=False), wanted)
    assert "can't be read without credentials" in refused.value.message
    assert "system_account" in refused.value.hint


def test_process_is_allowed_unverified_and_says_so() -> None:
    label = require(Settings(streams=(LOG,), verified=False), "process")
    assert label.startswith("process (unverified")


def test_an_unverified_broker_is_still_refused_for_what_its_streams_show() -> None:
    with pytest.raises(Usage, match="storage memory"):
        require(
            Settings(
                streams=(StreamSettings("LOG-0", storage="memory", discard="new"),), verified=False
            ),
            "process",
        )
