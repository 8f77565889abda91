"""Restate: its server from npm, one node on loopback with its defaults, and a service of its Python SDK."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import restate

from benchmarks.peers.driving import Driven, drive, tell

SERVER = (
    Path(__file__).with_name("node_modules") / "@restatedev" / "restate-server-linux-x64" / "bin" / "restate-server"
)
PHASES = ("initializing", "collecting_data", "counting", "evaluating", "finalizing")
ENDED = "SELECT count(*) AS count FROM sys_invocation WHERE status = 'completed'"

jobs = restate.Service("jobs")


@jobs.handler()
async def telling(context: restate.Context) -> None:
    """Says that it runs."""
    del context
    tell()


@jobs.handler()
async def noop(context: restate.Context) -> None:
    """Does nothing."""
    del context


@jobs.handler()
async def fivephase(context: restate.Context) -> None:
    """Five durable steps."""
    for name in PHASES:
        await context.run_typed(name, lambda phase=name: phase)


app = restate.app(services=[jobs])


class RestatePeer(Driven):
    """Submits with one-way calls to the ingress; each is answered once it is durable."""

    name = "restate"

    def __init__(self) -> None:
        super().__init__()
        self._ports = [_free_port() for _ in range(4)]
        self._folder = Path(os.environ["BENCH_FOLDER"]) / "restate"
        self._server: subprocess.Popen[bytes] | None = None

    async def prepare(self) -> None:
        if not SERVER.exists():
            raise RuntimeError("the npm package of its server is not installed for this system")
        self._start_server()
        self._session = aiohttp.ClientSession()

    def _start_server(self) -> None:
        ingress, admin, node, service = self._ports
        words = ("--no-logo", "--base-dir", str(self._folder), "--bind-ip", "127.0.0.1", "--bind-port", str(node))
        settings = {
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RUST_LOG": "error",
        }
        environment = {**os.environ, **settings}
        self._server = subprocess.Popen(
            [str(SERVER), *words], env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr
        )
        self.arguments = ("-m", "hypercorn", "benchmarks.peers.restate:app", "--bind", f"127.0.0.1:{service}")

    async def connect(self) -> None:
        async with asyncio.timeout(60):
            while True:
                try:
                    address = {"uri": f"http://127.0.0.1:{self._ports[3]}"}
                    await self._post(f"http://127.0.0.1:{self._ports[1]}/deployments", address)
                except (aiohttp.ClientError, RuntimeError):
                    await asyncio.sleep(0.2)  # one of the two is not up yet
                else:
                    return

    async def submit(self, kind: str) -> None:
        await self._post(f"http://127.0.0.1:{self._ports[0]}/jobs/{kind}/send", None)

    async def ended(self) -> int:
        answer = await self._post(f"http://127.0.0.1:{self._ports[1]}/query", {"query": ENDED})
        return int(answer["rows"][0]["count"])

    async def close(self) -> None:
        await super().close()
        await self._session.close()
        if self._server is not None:
            self._server.kill()
            self._server.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _post(self, url: str, body: Any) -> Any:
        if body is None:
            asking = self._session.post(url, skip_auto_headers=["Content-Type"])
        else:
            asking = self._session.post(url, json=body, headers={"Accept": "application/json"})
        async with asking as answer:
            if answer.status >= 300:
                raise RuntimeError(f"{answer.status} {(await answer.text())[:200]}")
            return await answer.json()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(asyncio.run(drive(RestatePeer())))
