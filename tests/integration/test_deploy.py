"""What `deploy/` hands out to run Phaseline: systemd's units, and Caddy for TLS."""

import asyncio
import configparser
import contextlib
import json
import os
import shlex
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from click.testing import CliRunner

from gateway.deps import Deps
from phaseline.cli import cli
from phaseline.settings import Settings
from tests.installation import BOUND_S, Api, embedded, running
from tests.ports import free_port
from tests.servers import installed

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KNOWN = {f"PHASELINE_{name.upper()}" for name in Settings.model_fields}
UNITS = sorted(path.name for path in (DEPLOY / "systemd").glob("*.service"))


def _service(name: str) -> configparser.SectionProxy:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(DEPLOY / "systemd" / name)
    return unit["Service"]


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_runs_a_command_that_exists_with_settings_that_exist(name: str):
    service = _service(name)
    program, *words = shlex.split(service["ExecStart"])
    assert Path(program).name == "phaseline"
    assert CliRunner().invoke(cli, [*words, "--help"]).exit_code == 0
    given = dict(word.split("=", 1) for word in shlex.split(service.get("Environment", "")))
    assert given.keys() <= KNOWN


def test_every_process_of_an_installation_has_a_unit():
    assert UNITS == ["phaseline-gateway@.service", "phaseline-migrate.service", "phaseline-worker@.service"]


def test_systemd_waits_longer_than_a_process_takes_to_end_in_order():
    drain_s = Settings.model_fields["drain_s"].default
    goodbye_s: Any = Deps.__dataclass_fields__["goodbye_window_s"].default
    for name, takes_s in (("phaseline-gateway@.service", goodbye_s), ("phaseline-worker@.service", drain_s)):
        service = _service(name)
        assert float(service["TimeoutStopSec"].removesuffix("s")) > takes_s + 10
        assert service["KillMode"] == "mixed"  # SIGTERM is the process's alone: it ends its children itself


def test_behind_tls_nobody_is_let_in_without_a_key_and_clients_keep_their_address():
    services = yaml.safe_load((DEPLOY / "tls" / "compose.yaml").read_text())["services"]
    own = services["gateway"]["environment"]
    assert own.keys() <= KNOWN
    assert own["PHASELINE_AUTH"] == "keys"
    assert own["PHASELINE_TRUSTED_PROXIES"]
    assert set(services) - set(yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]) == {"caddy"}


# ---- Caddy itself -----------------------------------------------------------------------------------------------


def _caddy() -> Path | None:
    found = shutil.which("caddy")
    return Path(found) if found else None


@asynccontextmanager
async def _caddied(upstream: str, folder: Path) -> AsyncIterator[str]:
    """Caddy with our file, on a loopback port of its own. Yields its URL."""
    program = await asyncio.to_thread(installed, _caddy, "caddy")
    assert program, "this test needs Caddy: install it, or let root install Debian's package"
    port = free_port()
    environment = {
        **os.environ,
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "PHASELINE_SITE": f"localhost:{port}",
        "PHASELINE_UPSTREAMS": upstream,
    }
    adapt = [str(program), "adapt", "--config", str(DEPLOY / "tls" / "Caddyfile"), "--adapter", "caddyfile"]
    adapted = await asyncio.to_thread(subprocess.run, adapt, env=environment, check=True, capture_output=True)
    config: dict[str, Any] = json.loads(adapted.stdout)
    config["admin"] = {"disabled": True}
    config["apps"]["pki"] = {"certificate_authorities": {"local": {"install_trust": False}}}
    for server in config["apps"]["http"]["servers"].values():  # no other port, no other address
        server |= {"listen": [f"127.0.0.1:{port}"], "automatic_https": {"disable_redirects": True}}
    path = folder / "caddy.json"
    path.write_text(json.dumps(config))
    with (folder / "caddy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(program), "run", "--config", str(path), env=environment, stdout=log, stderr=log
        )
    try:
        yield f"https://localhost:{port}"
    finally:
        process.terminate()
        async with asyncio.timeout(BOUND_S):
            await process.wait()


async def _trusted(folder: Path) -> ssl.SSLContext:
    """Trusts the authority Caddy made for itself."""
    root = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
    async with asyncio.timeout(BOUND_S):
        while not (root.exists() and root.stat().st_size):  # noqa: ASYNC110 another process writes it
            await asyncio.sleep(0.05)
    return ssl.create_default_context(cafile=str(root))


async def _answers(session: aiohttp.ClientSession, url: str) -> None:
    """It makes its certificate and asks the gateway first."""
    while True:
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(f"{url}/readyz") as answer:
                if answer.status == 200:
                    return
        await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_jobs_and_both_kinds_of_streams_pass_the_proxy_with_tls(tmp_path: Path):
    made = embedded(tmp_path / "data", PHASELINE_TRUSTED_PROXIES="127.0.0.1")
    async with running(made), _caddied(f"127.0.0.1:{made.port}", tmp_path) as url:
        tls = await _trusted(tmp_path)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:
            async with asyncio.timeout(BOUND_S):
                await _answers(session, url)
            http = Api(session, url)
            headers = {"X-Forwarded-For": "203.0.113.7"}  # a client that invents its address
            job = await http.post("/api/v1/jobs", {"engine": "countdown", "params": {"steps": 3}}, 202, **headers)
            async with asyncio.timeout(BOUND_S):
                socket = await session.ws_connect(f"{url}/api/v1/jobs/{job['id']}/stream", headers={"Origin": url})
                seen = [
                    event["seq"] async for frame in socket if "job_id" in (event := frame.json()) and "seq" in event
                ]
                sse = {"Accept": "text/event-stream"}
                async with session.get(f"{url}/api/v1/jobs/{job['id']}/events", headers=sse) as stream:
                    told = (await stream.read()).decode()
            events = await http.events(job["id"])
    assert seen == [event["seq"] for event in events]
    assert told.count("\ndata:") + told.startswith("data:") >= len(events)
    assert events[0]["address"] == "127.0.0.1"
