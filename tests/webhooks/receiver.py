"""A receiver of webhooks as a customer would run it: a real HTTP server that keeps what it was sent."""

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from standardwebhooks import Webhook

from tests.ports import free_port

BOUND_S = 60.0
Answering = Callable[["Receiver", web.Request], Awaitable[web.StreamResponse]]


class Receiver:
    """`got` are (path, headers, body) in the order they came; `answers` decides what each is told."""

    def __init__(self, answers: Answering, scheme: str, host: str, port: int) -> None:
        self.answers = answers
        self.url = f"{scheme}://{host}:{port}/hook"
        self.port = port
        self.got: list[tuple[str, dict[str, str], str]] = []
        self._came = asyncio.Condition()

    async def take(self, request: web.Request) -> web.StreamResponse:
        body = await request.text()
        self.got.append((request.path, {name.lower(): text for name, text in request.headers.items()}, body))
        async with self._came:
            self._came.notify_all()
        return await self.answers(self, request)

    async def came(self, number: int) -> None:
        """Waits until so many have come."""
        async with asyncio.timeout(BOUND_S), self._came:
            await self._came.wait_for(lambda: len(self.got) >= number)

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for _, headers, _ in self.got]

    def verified(self, secret: str) -> list[Any]:
        """Every body as JSON, once its signature held."""
        return [Webhook(secret).verify(body, headers) for _, headers, body in self.got]


async def well(_: Receiver, __: web.Request) -> web.Response:
    return web.Response(status=204)


def badly(times: int, status: int = 503, **headers: str) -> Answering:
    """So many answers of this status, then good ones."""

    async def answer(receiver: Receiver, _: web.Request) -> web.Response:
        return web.Response(status=status if len(receiver.got) <= times else 200, headers=headers)

    return answer


async def never(_: Receiver, __: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


@asynccontextmanager
async def receiving(
    answers: Answering = well, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, port: int | None = None
) -> AsyncIterator[Receiver]:
    receiver = Receiver(answers, "https" if tls else "http", host, port or free_port())
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", receiver.take)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, host, receiver.port, ssl_context=tls).start()
    try:
        yield receiver
    finally:
        await runner.cleanup()


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's certificate for 127.0.0.1 that signs itself, and the file that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "receiver")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret, public = folder / "key.pem", folder / "certificate.pem"
    plain = serialization.NoEncryption()
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, secret)
    return context, public
