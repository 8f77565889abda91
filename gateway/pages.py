"""The web pages and the JavaScript client: files of `gateway/web`, read once, served from memory.

Every view is the same document; its script shows what the address names. Nothing is loaded from elsewhere, nothing runs
that is not one of these files: the policy below says so to the browser.
"""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from gateway import fleet

WEB = Path(__file__).parent / "web"
VIEWS = (
    "/jobs",
    "/jobs/{job_id}",
    "/submit",
    "/submit/{engine}",
    "/schedules",
    "/schedules/{name}",
    "/workers",
    "/live",
    "/audit",
)
CLIENT = ("phaseline.js", "phaseline.d.ts")
COMPRESS_LEVEL = 9  # once, at startup
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".ts": "text/plain; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Cache-Control": "no-cache",  # kept, and asked for again with its ETag: a page and its modules are of one version
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept, Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}
# Other pages may import the client; it gives them nothing they could not write themselves.
_CLIENT_HEADERS = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent."""

    body: bytes
    packed: bytes
    etag: str
    content_type: str

    @classmethod
    def of(cls, path: Path) -> "Asset":
        """Reads the file."""
        body = path.read_bytes()
        digest = hashlib.sha256(body).hexdigest()[:32]
        return cls(body, gzip.compress(body, COMPRESS_LEVEL, mtime=0), digest, _TYPES[path.suffix])


class Pages:
    """The files by name, and the routes that serve them."""

    def __init__(self) -> None:
        self._assets = {path.name: Asset.of(path) for path in WEB.iterdir() if path.suffix in _TYPES}

    def routes(self) -> list[web.RouteDef]:
        """The document under the address of each view, its parts under `/web`, the client under `/client`."""
        return [
            web.get("/", self._index),
            *(web.get(view, self._document) for view in VIEWS),
            web.get("/web/{name}", self._part),
            web.get("/client/{name}", self._client),
        ]

    async def _index(self, request: web.Request) -> web.Response:
        """A browser gets the page, a program where things are."""
        return (
            await self._document(request) if "text/html" in request.headers.get("Accept", "") else fleet.index(request)
        )

    async def _document(self, request: web.Request) -> web.Response:
        return self._answer(request, "index.html")

    async def _part(self, request: web.Request) -> web.Response:
        return self._answer(request, request.match_info["name"])

    async def _client(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in CLIENT:
            raise web.HTTPNotFound
        return self._answer(request, name, _CLIENT_HEADERS)

    def _answer(self, request: web.Request, name: str, more: dict[str, str] | None = None) -> web.Response:
        asset = self._assets.get(name)
        if asset is None:
            raise web.HTTPNotFound
        packed = "gzip" in request.headers.get("Accept-Encoding", "")
        # Two representations, two tags (RFC 9110 §8.8.3.3).
        etag = f'"{asset.etag}{"-gzip" if packed else ""}"'
        headers = _HEADERS | (more or {}) | {"ETag": etag}
        if any(known.value == etag.strip('"') or known.value == "*" for known in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        if packed:
            headers["Content-Encoding"] = "gzip"
        return web.Response(
            body=asset.packed if packed else asset.body, headers=headers | {"Content-Type": asset.content_type}
        )
