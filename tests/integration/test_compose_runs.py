"""The commands of compose.yaml, run as local processes with its environment, make an installation that works.

Only what names a container's host, address or password is replaced; the order is the one `depends_on` asks for.
"""

import asyncio
import os
import re
import secrets
import signal
import sys
import urllib.parse
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml

from tests.servers import PostgresServer, RabbitServer

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
WORKERS = 3
DEFAULTED = re.compile(r"\$\{\w+:-([^}]*)\}")  # as compose reads `${NAME:-default}` where NAME is not set


class Installation:
    """compose.yaml on this machine, with servers of the test run."""

    def __init__(self, owner_url: str, role: str, vhost_url: str) -> None:
        self.services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
        password, parts = secrets.token_hex(8), urllib.parse.urlsplit(owner_url)
        self._owner_url, self._role = owner_url, role
        self._here = {
            "PHASELINE_DATABASE_URL": parts._replace(
                netloc=f"{role}:{password}@{parts.hostname}:{parts.port}"
            ).geturl(),
            "POSTGRES_APP_PASSWORD": password,
            "PHASELINE_RABBITMQ_URL": vhost_url,
            "PHASELINE_HOST": "127.0.0.1",
            "PHASELINE_PORT": "0",
            # Each container has the port to itself, these processes share one machine.
            "PHASELINE_METRICS_HOST": "127.0.0.1",
            "PHASELINE_METRICS_PORT": "0",
        }

    async def start(self, name: str) -> Process:
        """The command of a service, found beside this Python as in the image."""
        words = [word.replace("phaseline_app", self._role) for word in self.services[name]["command"]]
        return await self.run(*words, **self._environment(name))

    async def run(self, *command: str, **environment: str) -> Process:
        found = {"phaseline": str(BIN / "phaseline"), "python": sys.executable}.get(command[0], command[0])
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        return await asyncio.create_subprocess_exec(
            found, *command[1:], env={"PATH": path, **environment}, stdout=PIPE, stderr=PIPE
        )

    async def stop(self, name: str, process: Process) -> tuple[int | None, str]:
        """SIGTERM, then as long as compose waits; the exit code and what the process said on stderr."""
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(float(self.services[name].get("stop_grace_period", "10s").removesuffix("s"))):
            _, said = await process.communicate()
        return process.returncode, said.decode()

    def _environment(self, name: str) -> dict[str, str]:
        given = self.services[name]["environment"].items()
        here = self._here | ({"PHASELINE_DATABASE_URL": self._owner_url} if name == "migrate" else {})
        return {key: here.get(key) or DEFAULTED.sub(r"\1", value) for key, value in given}


@pytest.fixture
def installation(postgres: PostgresServer, rabbit: RabbitServer):
    role = f"compose_{secrets.token_hex(4)}"  # roles are the whole server's, which tests share
    with postgres.database() as database_url:
        yield Installation(database_url, role, rabbit.create_vhost())
        asyncio.run(dropped(database_url, role))


async def dropped(owner_url: str, role: str) -> None:
    owner = await asyncpg.connect(owner_url)
    try:
        if await owner.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
            await owner.execute(f"DROP OWNED BY {role}")
            await owner.execute(f"DROP ROLE {role}")
    finally:
        await owner.close()


@asynccontextmanager
async def ended(processes: list[tuple[str, Process]]) -> AsyncIterator[None]:
    """Whatever happens in the block, no process outlives it."""
    try:
        yield
    finally:
        for _, process in processes:
            if process.returncode is None:
                process.kill()
                await process.communicate()


async def exit_of(process: Process) -> tuple[int | None, str]:
    async with asyncio.timeout(60):
        told, said = await process.communicate()
    return process.returncode, (told + said).decode()


async def test_a_job_completes_on_what_compose_starts_and_everything_ends_in_order(installation: Installation):
    for _ in range(2):  # compose runs it again at each `up`
        code, said = await exit_of(await installation.start("migrate"))
        assert code == 0, said
    processes = [("gateway", await installation.start("gateway"))]
    async with ended(processes):
        for _ in range(WORKERS):
            processes.append(("engine_worker", await installation.start("engine_worker")))
        url = await url_of(processes[0][1])
        await until_healthy(installation, url)
        submitted = await installation.run(
            "phaseline", "submit", "countdown", "-p", "steps=3", "--follow", "--url", url, "--timeout", "30"
        )
        code, said = await exit_of(submitted)
        assert code == 0, said
        for name, process in reversed(processes):
            code, said = await installation.stop(name, process)
            assert code == 0, f"{name} ended with {code}: {said}"


async def url_of(gateway: Process) -> str:
    assert gateway.stdout is not None
    async with asyncio.timeout(30):
        while found := await gateway.stdout.readline():
            if url := re.search(rb"http://[\d.]+:\d+", found):
                return url[0].decode()
    raise AssertionError(f"the gateway printed no URL: {await exit_of(gateway)}")


async def until_healthy(installation: Installation, url: str) -> None:
    """Asks as compose does, with the command of the health check."""
    check = installation.services["gateway"]["healthcheck"]
    command = [word.replace("http://127.0.0.1:8000", url) for word in check["test"][1:]]
    assert command != check["test"][1:]
    said = "never asked"
    for _ in range(check["retries"]):
        code, said = await exit_of(await installation.run(*command))
        if code == 0:
            return
    raise AssertionError(f"the gateway never became ready: {said}")
