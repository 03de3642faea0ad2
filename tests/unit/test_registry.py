"""The registry of workers: what is offered, under which place, and what runs keep."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import registry as reg
from protocol.actions import UNHOSTED, Pool, WorkerSpec
from protocol.errors import Busy, Usage
from protocol.registry import EMPTY, ChangeAdmitted, Registry, WorkerRegistered, WorkerWithdrawn


def tool(name: str, does: str = "", host: str = "") -> WorkerSpec:
    return WorkerSpec(name=name, description=does, adapter=f"function:m:{name}", host=host)


def told(registry: Registry, *workers: WorkerSpec, renewed: Sequence[str] = ()) -> Registry:
    """After a change to these workers, which is tried and admitted if it has to be."""
    said = reg.change(registry, Pool(workers), at=5, by="me", renewed=frozenset(renewed))
    if said is None:
        return registry
    registry = reg.folded(registry, [said])
    if registry.pending is not None:
        registry = reg.folded(registry, [reg.verdict(registry, "", at=6)])
    return registry


def places(registry: Registry) -> dict[str, str]:
    return {spec.name: spec.place for spec in registry.offered}


def test_what_is_registered_is_offered_when_it_was_seen_to_work() -> None:
    said = reg.change(EMPTY, Pool((tool("a"), tool("b"))), at=5, by="me", folder="/pool")
    assert said is not None
    assert (said.n, said.at, said.by) == (1, 5, "me")
    registry = reg.folded(EMPTY, [said])
    assert registry.offered == ()
    assert registry.pending == said
    assert [spec.name for spec in registry.tried] == ["a", "b"]
    registry = reg.folded(registry, [reg.verdict(registry, "", at=6)])
    assert registry.offered == (tool("a"), tool("b"))
    assert registry.known["a"] == (tool("a"), "/pool", "", 1, 5, True)
    assert registry.pending is None


def test_what_can_not_work_changes_nothing_and_can_be_tried_again() -> None:
    before = told(EMPTY, tool("a"))
    said = reg.change(before, Pool((tool("a", "other"), tool("b"))), at=7)
    assert said is not None
    registry = reg.folded(before, [said])
    registry = reg.folded(registry, [reg.verdict(registry, "no such command", at=8)])
    assert registry.offered == before.offered
    assert registry.refused == {said.n: "no such command"}
    again = told(registry, tool("a", "other"), tool("b"))
    assert places(again) == {"a": "a@2", "b": "b"}


def test_runs_never_get_what_came_to_nothing_and_all_else_is_as_it_was() -> None:
    before = told(told(EMPTY, tool("a"), tool("b")), tool("b"))
    tried = Pool((tool("a"), tool("b", "other")))
    said = reg.change(before, tried, at=7, folder="/elsewhere")
    assert said is not None
    registry = reg.folded(before, [said])
    assert registry.registered["a"].folder == "/elsewhere", "where it is tried"
    registry = reg.folded(registry, [reg.verdict(registry, "no such command", at=8)])
    assert reg.as_defined(registry.hosted, tool("b", "other")) is None
    assert list(registry.earlier) == ["a"]
    assert {place: registry.known[place] for place in before.known} == before.known
    again = told(told(registry, *tried.workers), tool("b"))
    assert list(again.earlier) == ["a", "b@2"], "it works by now"


def test_a_changed_worker_has_a_place_of_its_own_and_runs_keep_the_earlier_one() -> None:
    before = told(EMPTY, tool("a"), tool("b"))
    registry = told(before, tool("a", "better"), tool("b"))
    assert places(registry) == {"a": "a@2", "b": "b"}
    assert list(registry.earlier) == ["a"]
    assert reg.as_recorded(registry.hosted, before.offered[0])
    assert not reg.as_recorded(registry.hosted, tool("a", "a third"))
    assert reg.as_defined(registry.hosted, tool("a", "better")) == registry.offered[0]
    assert reg.as_defined(registry.hosted, tool("a")) == tool("a")
    assert reg.as_defined(registry.hosted, tool("a", "a third")) is None


def test_a_definition_that_comes_back_has_the_place_that_it_had() -> None:
    registry = told(told(told(EMPTY, tool("a")), tool("a", "better")), tool("a"))
    assert places(registry) == {"a": "a"}
    registry = told(registry, tool("a", "third"))
    assert places(registry) == {"a": "a@3"}


def test_a_withdrawn_worker_is_offered_to_nobody_and_still_hosted_for_those_who_have_it() -> None:
    before = told(EMPTY, tool("a"), tool("b"))
    said = reg.change(before, Pool((tool("a"),)), at=7)
    assert said is not None
    assert said.events == (WorkerWithdrawn(name="b"), ChangeAdmitted(change=said.n))
    registry = reg.folded(before, [said])
    assert registry.offered == (tool("a"),)
    assert reg.as_recorded(registry.hosted, tool("b"))


def test_a_renamed_worker_stays_where_it_is() -> None:
    before = told(EMPTY, tool("a"), tool("b"))
    renamed = msgspec.structs.replace(tool("a"), name="z")
    said = reg.change(before, Pool((renamed, tool("b"))), at=7)
    assert said is not None
    hosted = msgspec.structs.replace(renamed, queue="a")
    assert said.events == (
        WorkerRegistered(spec=hosted, replaces="a"),
        ChangeAdmitted(change=said.n),
    )
    registry = reg.folded(before, [said])
    assert registry.offered == (hosted, tool("b"))
    assert reg.as_recorded(registry.hosted, tool("a"))  # as a run has it that began before


def test_a_worker_that_gets_its_earlier_name_back_stays_where_it_is() -> None:
    renamed = msgspec.structs.replace(tool("a"), name="z")
    registry = told(
        told(told(EMPTY, tool("a"), tool("b")), renamed, tool("b")), tool("a"), tool("b")
    )
    assert registry.offered == (tool("a"), tool("b"))


def test_a_pool_that_a_run_has_recorded_is_hosted_as_it_is() -> None:
    registry = told(told(EMPTY, tool("a"), tool("b")), tool("a", "better"), tool("b"))
    copy = msgspec.structs.replace(registry.offered[0], name="copy", queue="a@2")
    assert places(told(registry, tool("a"), copy)) == {"a": "a", "copy": "a@2"}


def test_a_name_that_was_given_up_is_free_and_its_place_is_not() -> None:
    renamed = msgspec.structs.replace(tool("a"), name="z")
    registry = told(told(EMPTY, tool("a")), renamed)
    registry = told(registry, renamed, tool("a", "another"))
    assert places(registry) == {"z": "a", "a": "a@2"}


def test_two_names_of_one_definition_that_both_stay_are_two_workers() -> None:
    twin = msgspec.structs.replace(tool("a"), name="twin")
    assert places(told(told(EMPTY, tool("a")), tool("a"), twin)) == {"a": "a", "twin": "twin"}


def test_workers_of_one_process_change_together() -> None:
    before = told(EMPTY, tool("a", host="files"), tool("b", host="files"), tool("c"))
    registry = told(before, tool("a", host="files"), tool("b", "new", host="files"), tool("c"))
    assert places(registry) == {"a": "a@2", "b": "b@2", "c": "c"}
    assert {spec.host for spec in registry.offered} == {"files@2", ""}
    assert all(reg.as_recorded(registry.hosted, spec) for spec in before.offered)


def test_workers_of_one_process_are_renamed_together() -> None:
    before = told(EMPTY, tool("a", host="files"), tool("b", host="files"))
    renamed = [msgspec.structs.replace(tool(n, host="disk"), name=f"disk_{n}") for n in "ab"]
    registry = told(before, *renamed)
    assert places(registry) == {"disk_a": "a", "disk_b": "b"}
    assert {spec.host for spec in registry.offered} == {"files"}


def test_what_is_renewed_has_a_place_of_its_own_though_its_definition_is_the_same() -> None:
    registry = told(told(EMPTY, tool("a"), tool("b")), tool("a"), tool("b"), renewed=["a"])
    assert places(registry) == {"a": "a@2", "b": "b"}
    assert reg.as_defined(registry.hosted, tool("a")) == registry.offered[0]
    with pytest.raises(Usage, match="no worker 'x' to renew"):
        told(registry, tool("a"), renewed=["x"])


def test_a_fork_has_what_was_renewed_and_else_what_was_recorded() -> None:
    recorded = told(EMPTY, tool("a"), tool("b"))
    registry = told(recorded, tool("a"), tool("b", "better"), renewed=["a"])
    found = {spec.name: spec.place for spec in reg.forked(registry, recorded.pool)}
    assert found == {"a": "a@2", "b": "b"}
    unknown = Pool((tool("a", "nobody hosts it"),))
    assert tuple(reg.forked(registry, unknown)) == unknown.workers


def test_workers_of_one_process_that_come_back_are_in_one_that_has_them_all() -> None:
    a, b, c = (tool(name, host="h") for name in "abc")
    fewer = told(EMPTY, a, b)
    more = told(fewer, a, b, c)
    assert places(more) == {"a": "a@2", "b": "b@2", "c": "c"}
    away = told(more, tool("d"))
    assert {spec.host for spec in told(away, a, b).offered} == {"h"}
    assert {spec.host for spec in told(away, a, b, c).offered} == {"h@2"}
    other = tool("e", host="h")
    assert {spec.host for spec in told(told(away, other), a, b).offered} == {"h"}
    assert told(told(away, other), a, b, c).offered == more.offered


def test_what_shares_a_session_is_found_in_one_process() -> None:
    first = told(EMPTY, tool("a", host="h"), tool("b", host="h"))
    registry = told(first, tool("a", host="h"), tool("b", "better", host="h"))
    assert [spec.host for spec in registry.offered] == ["h@2", "h@2"]
    wanted = Pool((tool("a", host="h"), tool("b", host="h")))
    for found in (reg.begun(registry, wanted), reg.forked(registry, first.pool)):
        assert tuple(found) == first.offered
    alone = Pool((tool("a", host="h"),))
    assert [spec.host for spec in reg.begun(registry, alone)] == ["h@2"]


def test_what_needs_no_host_is_offered_at_once() -> None:
    boss = WorkerSpec(name="boss", kind="conductor", adapter="conductor")
    registry = told(EMPTY, tool("a"), boss)
    changed = msgspec.structs.replace(boss, description="Asks back.")
    said = reg.change(registry, Pool((tool("a"), changed)), at=9)
    assert said is not None
    assert said.events[-1] == ChangeAdmitted(change=said.n)
    assert reg.folded(registry, [said]).offered[1] == changed


def test_a_person_has_the_place_of_no_worker() -> None:
    person = msgspec.structs.replace(tool("a"), kind="person")
    asked = told(told(EMPTY, tool("a")), person)
    assert list(asked.earlier) == ["a"], "runs may have the worker"
    said = reg.change(asked, Pool((tool("a"),)), at=9)
    assert said is not None
    assert reg.folded(asked, [said]).pending == said, "it is tried, though the person was there"


def test_a_person_may_have_another_name() -> None:
    anna = WorkerSpec(name="anna", kind="person", adapter="person")
    before = told(EMPTY, tool("a"), anna, tool("b"))
    berta = msgspec.structs.replace(anna, name="berta")
    said = reg.change(before, Pool((tool("a"), berta, tool("b"))), at=9)
    assert said is not None
    assert said.events == (
        WorkerRegistered(spec=berta, replaces="anna"),
        ChangeAdmitted(change=said.n),
    )


def test_one_change_is_tried_at_a_time() -> None:
    said = reg.change(EMPTY, Pool((tool("a"),)), at=1)
    assert said is not None
    with pytest.raises(Busy, match="change 1 of the workers is still being tried"):
        reg.change(reg.folded(EMPTY, [said]), Pool((tool("b"),)), at=2)


SPECS = st.builds(
    WorkerSpec,
    name=st.sampled_from("abcd"),
    kind=st.sampled_from(["tool", "tool", "agent", "person"]),
    description=st.sampled_from(["", "one", "two"]),
    host=st.sampled_from(["", "", "files"]),
)
POOLS = st.lists(SPECS, min_size=1, max_size=4, unique_by=lambda spec: spec.name).map(
    lambda specs: [msgspec.structs.replace(s, host="") if s.kind in UNHOSTED else s for s in specs]
)


@given(st.lists(st.tuples(POOLS, st.booleans(), st.booleans()), max_size=6))
def test_the_offered_pool_is_the_wanted_one_and_what_runs_have_stays_hosted(
    steps: list[tuple[list[WorkerSpec], bool, bool]],
) -> None:
    registry, log, recorded = EMPTY, [], []
    together: dict[str, set[str]] = {}
    for workers, works, renew in steps:
        renewed = frozenset({workers[0].name}) if renew else frozenset()
        said = reg.change(registry, Pool(tuple(workers)), at=1, renewed=renewed)
        before = registry.offered
        if said is not None:
            log.append(said)
            registry = reg.folded(registry, [said])
        if registry.pending is not None:
            log.append(reg.verdict(registry, "" if works else "it does not start", at=2))
            registry = reg.folded(registry, log[-1:])
            if not works:
                assert registry.offered == before
                continue
        assert [reg.definition(s) for s in registry.offered] == list(map(reg.definition, workers))
        assert reg.change(registry, Pool(tuple(workers)), at=3) is None
        assert [reg.as_defined(registry.hosted, spec) for spec in workers] == list(registry.offered)
        hosted = [spec for spec in registry.offered if spec.kind not in UNHOSTED]
        assert len({spec.place for spec in hosted}) == len(hosted)
        recorded += hosted
        shared = {spec.host: {s.place for s in hosted if s.host == spec.host} for spec in hosted}
        assert len(shared) <= 2, "all that share a process still do"
        for host, there in shared.items():
            assert not host or there <= together.setdefault(host, there), "nobody joins later"
    assert all(reg.as_recorded(registry.hosted, spec) for spec in recorded)
    assert {s.place for s in recorded} <= reg.places(registry.offered) | registry.earlier.keys()
    assert reg.folded(EMPTY, log) == registry
    read = msgspec.json.decode(msgspec.json.encode(log), type=list[reg.Change])
    assert reg.folded(EMPTY, read) == registry


LOG = """\
{"n":1,"at":5,"by":"up","events":[{"type":"WorkerRegistered","spec":{"name":"a"},"folder":"/p"},\
{"type":"WorkerRegistered","spec":{"name":"b"},"table":"b"}]}
{"n":2,"at":6,"events":[{"type":"ChangeAdmitted","change":1}]}
{"n":3,"at":7,"events":[\
{"type":"WorkerRegistered","spec":{"name":"a","queue":"a@2"},"replaces":"a"},\
{"type":"WorkerWithdrawn","name":"b"},{"type":"WorkersOrdered","names":["a"]}]}
{"n":4,"at":8,"events":[{"type":"ChangeRefused","change":3,"why":"no"}]}
"""


def test_a_log_that_was_written_is_folded_for_ever() -> None:
    changes = [msgspec.json.decode(line, type=reg.Change) for line in LOG.splitlines()]
    registry = reg.folded(EMPTY, changes)
    assert registry.offered == (WorkerSpec(name="a"), WorkerSpec(name="b"))
    assert {place: each.change for place, each in registry.known.items()} == {
        "a": 1,
        "b": 1,
        "a@2": 3,
    }
    assert registry.refused == {3: "no"}
    assert [registry.table_of(spec) for spec in registry.offered] == ["", "b"]
    assert [
        msgspec.json.decode(msgspec.json.encode(c), type=reg.Change) for c in changes
    ] == changes
